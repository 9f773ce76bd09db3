//! A wire between two processes that can be cut, blocked or slowed: a proxy that looks at nothing it carries.
//!
//! A blocked link keeps its connections and whatever was under way in them, as a network does whose packets are lost for
//! a while: what was written before or meanwhile arrives when the link is clear again, late, even if the writer has gone
//! away. A cut link resets what it has and whatever comes.

use std::cell::Cell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{Instant, sleep_until};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// What the link does to its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Carries everything at once.
    Clear,
    /// Carries everything this much later.
    Slow(Duration),
    /// Carries nothing, and breaks nothing.
    Hole,
    /// Resets every connection.
    Cut,
}

/// A link, gone with all its connections when dropped.
#[derive(Debug)]
pub(crate) struct Link {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    target: Rc<Cell<SocketAddr>>,
    acceptor: JoinHandle<()>,
}

impl Link {
    /// A clear link to `target`.
    pub(crate) fn new(target: SocketAddr) -> io::Result<Self> {
        let listener = listen()?;
        let address = listener.local_addr()?;
        let (weather, observed) = watch::channel(Weather::Clear);
        let target = Rc::new(Cell::new(target));
        let acceptor = spawn_local(accept(listener, Rc::clone(&target), observed));
        Ok(Self { address, weather, target, acceptor })
    }

    /// Where its near end listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads connections made from now on elsewhere.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        self.target.set(target);
    }

    /// Changes the weather for all connections.
    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.weather.send_replace(Weather::Cut);
        self.acceptor.abort();
    }
}

/// Listens on a port of its own; on another one where somebody else was faster.
fn listen() -> io::Result<TcpListener> {
    let mut attempts = 0..100;
    loop {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        let bound = socket.bind((Ipv4Addr::LOCALHOST, fanfare_testbed::free_port()).into());
        match bound.and_then(|()| socket.listen(BACKLOG)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts.next().is_some() => {}
            listener => return listener,
        }
    }
}

async fn accept(listener: TcpListener, target: Rc<Cell<SocketAddr>>, weather: watch::Receiver<Weather>) {
    loop {
        // Out of descriptors, or a client that has gone already: neither ends the link.
        let Ok((near, _)) = listener.accept().await else { continue };
        spawn_local(carry(near, target.get(), weather.clone()));
    }
}

/// The life of one connection.
async fn carry(mut near: TcpStream, target: SocketAddr, weather: watch::Receiver<Weather>) {
    let mut cut = weather.clone();
    let mut far = None;
    let carried = async {
        let far = far.insert(TcpStream::connect(target).await?);
        far.set_nodelay(true)?;
        near.set_nodelay(true)?;
        let (from_near, to_near) = near.split();
        let (from_far, to_far) = far.split();
        tokio::try_join!(pump(from_near, to_far, weather.clone()), pump(from_far, to_near, weather)).map(drop)
    };
    let whole = tokio::select! {
        outcome = carried => outcome.is_ok(),
        // An error is a link that was dropped: as good as cut.
        _ = cut.wait_for(|weather| *weather == Weather::Cut) => false,
    };
    if !whole {
        for end in [Some(near), far].into_iter().flatten() {
            // It may be closed already.
            let _ = end.set_zero_linger();
        }
    }
}

/// One direction, until its end; an error in one direction is a reset of both.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        let read = Instant::now();
        let clear = weather.wait_for(|weather| *weather != Weather::Hole).await;
        let now = *clear.map_err(|_| io::ErrorKind::ConnectionReset)?;
        if let Weather::Slow(delay) = now {
            sleep_until(read + delay).await;
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::time::timeout;

    /// A client's end of a new link and the server's end of the same connection, that has carried something.
    async fn pair() -> (Link, TcpStream, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let link = Link::new(server.local_addr().unwrap()).unwrap();
        let mut client = TcpStream::connect(link.address()).await.unwrap();
        let (mut served, _) = server.accept().await.unwrap();
        client.write_all(b"-").await.unwrap();
        served.read_exact(&mut [0; 1]).await.unwrap();
        (link, client, served)
    }

    fn run(test: impl Future<Output = ()>) {
        Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .unwrap()
            .block_on(test);
    }

    #[test]
    fn what_falls_into_a_hole_comes_out_when_it_clears() {
        run(async {
            let (link, mut client, mut served) = pair().await;
            link.set(Weather::Hole);
            client.write_all(b"late").await.unwrap();
            drop(client);
            let mut text = [0; 4];
            let nothing = timeout(Duration::from_millis(50), served.read_exact(&mut text)).await;
            assert!(nothing.is_err(), "a hole carries nothing");
            link.set(Weather::Clear);
            served.read_exact(&mut text).await.unwrap();
            assert_eq!(&text, b"late");
            assert_eq!(served.read(&mut text).await.unwrap(), 0, "and the end comes after it");
        });
    }

    #[test]
    fn a_cut_resets_both_ends() {
        run(async {
            let (link, mut client, mut served) = pair().await;
            link.set(Weather::Cut);
            for end in [&mut client, &mut served] {
                let error = end.read(&mut [0; 1]).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            }
        });
    }

    #[test]
    fn a_slow_link_is_slow_by_as_much_as_it_says() {
        run(async {
            let (link, mut client, mut served) = pair().await;
            let delay = Duration::from_millis(80);
            link.set(Weather::Slow(delay));
            let began = Instant::now();
            client.write_all(b"x").await.unwrap();
            served.read_exact(&mut [0; 1]).await.unwrap();
            assert!(began.elapsed() >= delay);
        });
    }
}
