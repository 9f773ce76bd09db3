//! Other people's HTTP servers, as a gateway asks them: one that answers as a test says, and one that does as it likes.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::authority::Certificate;

/// What it was asked, whole.
pub type Asked = Request<Bytes>;

type Answering = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;
type Answer = Arc<dyn Fn(Asked) -> Answering + Send + Sync>;

/// An HTTP/1.1 server with keep-alive, which writes down what it is asked. It is gone when dropped.
#[derive(Debug)]
pub struct Backend {
    address: SocketAddr,
    scheme: &'static str,
    records: Arc<Records>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Records {
    connections: AtomicUsize,
    asked: Mutex<Vec<(String, Bytes)>>,
}

impl Backend {
    /// A server in clear that answers each request like this.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start<F>(answer: impl Fn(Asked) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Self::serve("http", None, Arc::new(move |asked| Box::pin(answer(asked)))).await
    }

    /// The same over TLS.
    ///
    /// # Panics
    /// When no port is free, or the certificate is no good.
    pub async fn start_tls<F>(
        Certificate { cert, key }: &Certificate,
        answer: impl Fn(Asked) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).expect("a chain in PEM");
        let key = PrivateKeyDer::from_pem_file(key).expect("a private key in PEM");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("both versions have ciphers")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("they fit");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::serve("https", Some(acceptor), Arc::new(move |asked| Box::pin(answer(asked)))).await
    }

    async fn serve(scheme: &'static str, tls: Option<TlsAcceptor>, answer: Answer) -> Self {
        let records = Arc::<Records>::default();
        let (address, tasks) = accept({
            let records = records.clone();
            move |socket| {
                records.connections.fetch_add(1, Ordering::Relaxed);
                let (tls, answer, records) = (tls.clone(), answer.clone(), records.clone());
                async move {
                    match tls {
                        None => converse(socket, answer, records).await,
                        Some(tls) => {
                            // Who does not trust the certificate hangs up.
                            if let Ok(stream) = tls.accept(socket).await {
                                converse(stream, answer, records).await;
                            }
                        }
                    }
                }
            }
        })
        .await;
        Self { address, scheme, records, _tasks: tasks }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, which begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        let host = if self.scheme == "https" { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}{path}", self.scheme, self.address.port())
    }

    /// Method and target of each request so far, and its body.
    #[must_use]
    pub fn asked(&self) -> Vec<(String, Bytes)> {
        self.records.asked.lock().clone()
    }

    /// How many requests have come.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.records.asked.lock().len()
    }

    /// How many connections have come.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.records.connections.load(Ordering::Relaxed)
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: Answer,
    records: Arc<Records>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, records) = (answer.clone(), records.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|whole| whole.to_bytes()).unwrap_or_default();
            records.asked.lock().push((format!("{} {}", head.method, head.uri), body.clone()));
            Ok::<_, Infallible>(answer(Request::from_parts(head, body)).await)
        }
    });
    // A client that hangs up is no failure of this server.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A server that does with each socket whatever `converse` does. It is gone when the second is dropped.
///
/// # Panics
/// When no port is free.
pub async fn accept<F>(converse: impl Fn(TcpStream) -> F + Send + 'static) -> (SocketAddr, JoinSet<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut conversations = JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            conversations.spawn(converse(socket));
            while conversations.try_join_next().is_some() {}
        }
    });
    (address, tasks)
}
