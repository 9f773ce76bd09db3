//! Before the backend's word on clients ends it is asked again: once for many of them.
//!
//! Connections hand in who they are about, and get the answer whenever it comes; they go on meanwhile. The first to come
//! starts a task, which waits a moment for others and asks about as many as fit into a question, one question after the other,
//! until nobody is left: however many there are, the backend hears of them in one row.

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderMap;
use fanfare_metrics::Hook;
use fanfare_protocol::SessionId;
use fanfare_protocol::error::Failure;
use fanfare_protocol::grant::Grant;
use fanfare_protocol::hook;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::{About, Hooks, No, RETRY_AFTER, unanswered};
use crate::node::Services;

/// How long the first waits for others.
const GATHERING: Duration = Duration::from_millis(50);

/// The most clients in one question; they have some hundred bytes each.
const CLIENTS_MAX: usize = 500;

/// What comes of it, once that is known.
pub(crate) type Renewal = oneshot::Receiver<Result<Arc<Grant>, Failure>>;

/// Those whose word is about to end.
#[derive(Debug, Default)]
pub(crate) struct Renewals(Mutex<Vec<Waiting>>);

#[derive(Debug)]
struct Waiting {
    session: SessionId,
    grant: Arc<Grant>,
    answer: oneshot::Sender<Result<Arc<Grant>, Failure>>,
}

impl Renewals {
    /// Has the backend asked about a client.
    pub(crate) fn ask(session: SessionId, grant: Arc<Grant>, services: &Arc<Services>) -> Renewal {
        let (answer, renewal) = oneshot::channel();
        let mut waiting = services.renewals.0.lock();
        waiting.push(Waiting { session, grant, answer });
        if waiting.len() == 1 {
            let theirs = services.clone();
            services.tasks.spawn(async move { Self::run(&theirs).await });
        }
        renewal
    }

    async fn run(services: &Services) {
        sleep(GATHERING).await;
        loop {
            let run: Vec<_> = {
                let mut waiting = services.renewals.0.lock();
                let count = waiting.len().min(CLIENTS_MAX);
                waiting.drain(..count).collect()
            };
            let here: Vec<_> = run.into_iter().filter(|it| !it.answer.is_closed()).collect();
            let settings = services.settings();
            settings.hooks.renew(here, services).await;
            if services.renewals.0.lock().is_empty() {
                return;
            }
        }
    }
}

impl Hooks {
    /// Asks about these, and gives each its answer.
    async fn renew(&self, clients: Vec<Waiting>, services: &Services) {
        if clients.is_empty() {
            return;
        }
        let node = services.settings().policy.node.clone();
        let now = services.clock.unix();
        let body = hook::refresh(clients.iter().map(|it| (it.session, &*it.grant)), &node, now);
        let read = |body: &[u8]| {
            let answers = hook::refresh_answers(body)?;
            // Each is read for itself: what is wrong with one is no other's fault.
            let one = |it: &Waiting| match answers(it.session)
                .map(|body| hook::connect(body, Some(&it.grant), now))
            {
                Some(Ok(Ok(grant))) => Ok(Arc::new(grant)),
                Some(Ok(Err(refusal))) => Err(refusal),
                Some(Err(_)) | None => Err(unanswered(RETRY_AFTER)),
            };
            Ok(Ok(clients.iter().map(one).collect::<Vec<_>>()))
        };
        let nobody = About { session: None, caller: None, grant: None };
        let asked = self
            .post(
                (Hook::Refresh, nobody, None),
                self.refresh.as_ref(),
                HeaderMap::new(),
                body,
                services,
                read,
            )
            .await;
        let mut answers = asked.map(Vec::into_iter);
        for client in clients {
            let answer = match &mut answers {
                Ok(answers) => answers.next().expect("each has one"),
                // Who asks was refused, not those who were asked about.
                Err(No::Refused(_)) => Err(unanswered(RETRY_AFTER)),
                Err(No::Failed(failure)) => Err(failure.clone()),
            };
            let _ = client.answer.send(answer);
        }
    }
}
