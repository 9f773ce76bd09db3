//! A client of HTTP/2 (the `h2` crate): requests, and WebSockets by extended CONNECT (RFC 8441), as many as one likes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::client::{Builder, SendRequest};
use h2::ext::Protocol;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::client::Client;
use crate::eventually::{PATIENCE, eventually};

/// What a client takes in on all streams together before it has read it: far more than on one, so that a stream that is
/// not read cannot hold up the others.
const SOCKET_WINDOW: u32 = 8 * 1024 * 1024;

/// A connected client. Its socket lives until it is dropped.
#[derive(Debug)]
pub struct Http2 {
    requests: SendRequest<Bytes>,
    address: SocketAddr,
    driver: JoinHandle<Result<(), h2::Error>>,
}

impl Http2 {
    /// Connects in clear, with prior knowledge.
    ///
    /// # Panics
    /// When the gateway does not listen, or does not speak HTTP/2.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.expect("the gateway listens"), address).await
    }

    /// The same over any stream; waits until the gateway has said that it takes extended CONNECT, if it ever does so.
    ///
    /// # Panics
    /// When the gateway does not speak HTTP/2.
    pub async fn over<S>(stream: S, address: SocketAddr) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new();
        builder.initial_connection_window_size(SOCKET_WINDOW);
        let handshake = timeout(PATIENCE, builder.handshake(stream)).await.expect("the gateway answers");
        let (requests, connection) = handshake.expect("the gateway speaks HTTP/2");
        #[expect(clippy::disallowed_methods, reason = "it ends with the client, which is in a test")]
        let driver = tokio::spawn(connection);
        let requests = requests.ready().await.expect("the gateway takes requests");
        Self { requests, address, driver }
    }

    /// Asks; the body of the answer is read whole.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn request(&mut self, request: Request<()>) -> Response<Vec<u8>> {
        let requests = self.requests.clone().ready().await;
        let (response, _) =
            requests.expect("the socket lives").send_request(request, true).expect("a request is sent");
        let answer = timeout(PATIENCE, read(response)).await.expect("the gateway answers");
        answer.expect("the stream lives")
    }

    /// A GET.
    ///
    /// # Panics
    /// When there is no answer.
    pub async fn get(&mut self, path: &str) -> Response<Vec<u8>> {
        let uri = format!("http://{}{path}", self.address);
        self.request(Request::get(uri).body(()).expect("a path makes a request")).await
    }

    /// The handshake of RFC 8441 for `/ws`, to change at will.
    ///
    /// # Panics
    /// Never: the address makes a good request.
    #[must_use]
    pub fn handshake(&self) -> Request<()> {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("http://{}/ws", self.address))
            .header("sec-websocket-version", "13")
            .header("sec-websocket-protocol", "fanfare.v1.json");
        request.extension(Protocol::from_static("websocket")).body(()).expect("an address makes a request")
    }

    /// Opens a stream by a handshake. Being refused is an answer.
    ///
    /// # Errors
    /// The answer, if its status is not 200.
    ///
    /// # Panics
    /// When there is none.
    pub async fn open(&mut self, handshake: Request<()>) -> Result<(HeaderMap, Stream), Response<Vec<u8>>> {
        eventually("the gateway takes extended CONNECT", async || {
            self.requests.is_extended_connect_protocol_enabled()
        })
        .await;
        let requests = self.requests.clone().ready().await.expect("the socket lives");
        let (response, sending) = { requests }.send_request(handshake, false).expect("a request is sent");
        let response = timeout(PATIENCE, response).await.expect("the gateway answers");
        let (head, receiving) = response.expect("the stream lives").into_parts();
        if head.status == 200 {
            return Ok((head.headers, Stream { sending, receiving, unread: Bytes::new() }));
        }
        let body = timeout(PATIENCE, read_body(receiving)).await.expect("the body comes");
        Err(Response::from_parts(head, body.expect("the stream lives")))
    }

    /// A WebSocket that has heard `welcome`.
    ///
    /// # Panics
    /// When it is not let in.
    pub async fn websocket(&mut self) -> Client<Stream> {
        let (_, stream) = self.open(self.handshake()).await.expect("the gateway lets the client in");
        Client::speak(stream).await.expect("the gateway greets")
    }

    /// Waits until the gateway has ended the socket, and says how.
    ///
    /// # Errors
    /// How it ended, unless in peace.
    ///
    /// # Panics
    /// When it does not.
    pub async fn ended(&mut self) -> Result<(), h2::Error> {
        let ended = timeout(PATIENCE, &mut self.driver).await.expect("the gateway ends it");
        ended.expect("the driver does not panic")
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn read(response: h2::client::ResponseFuture) -> Result<Response<Vec<u8>>, h2::Error> {
    let (head, body) = response.await?.into_parts();
    Ok(Response::from_parts(head, read_body(body).await?))
}

async fn read_body(mut body: RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut whole = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        whole.extend(data);
    }
    Ok(whole)
}

/// One stream of HTTP/2 as a stream of bytes. What is not read is not released: the peer runs into the window.
#[derive(Debug)]
pub struct Stream {
    sending: SendStream<Bytes>,
    receiving: RecvStream,
    unread: Bytes,
}

impl Stream {
    /// RST_STREAM, with CANCEL.
    pub fn reset(mut self) {
        self.sending.send_reset(h2::Reason::CANCEL);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(self.receiving.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Ok(data)) => self.unread = data,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
            }
        }
        let length = self.unread.len().min(buffer.remaining());
        buffer.put_slice(&self.unread[..length]);
        self.unread.advance(length);
        self.receiving.flow_control().release_capacity(length).map_err(io::Error::other)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.sending.reserve_capacity(bytes.len());
        while self.sending.capacity() == 0 {
            match ready!(self.sending.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let length = bytes.len().min(self.sending.capacity());
        let data = Bytes::copy_from_slice(&bytes[..length]);
        self.sending.send_data(data, false).map_err(io::Error::other)?;
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.sending.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}
