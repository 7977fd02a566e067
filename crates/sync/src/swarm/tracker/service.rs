//! The tracker as a gRPC service.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ballast_format::ErrorKind;
use ballast_node::error::Error;
use ballast_proto::LONGEST_MESSAGE;
use ballast_proto::v1;
use ballast_proto::v1::swarm_server::{Swarm, SwarmServer};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::Notify;
use tonic::{Request, Response, Status, Streaming};

use super::Tracker;
use super::read::{Senseless, read_sha256, read_xorb};
use super::roster::{NodeNumber, Told};
use crate::cluster::{Guest, PeerName, PeerRole, caller_of, may_try};

/// The most xorbs of one question.
const MOST_ASKED: usize = 4096;
/// How often somebody may watch.
const WATCHED_EVERY: Duration = Duration::from_millis(200);

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Tracker {
    /// The service.
    pub fn service(self: Arc<Self>) -> SwarmServer<Service> {
        SwarmServer::new(Service(self)).max_decoding_message_size(LONGEST_MESSAGE)
    }
}

/// Answers calls to a tracker.
pub struct Service(Arc<Tracker>);

#[tonic::async_trait]
impl Swarm for Service {
    type DescribeStream = Answers<v1::Described>;
    type AttendStream = Answers<v1::Plan>;
    type WatchStream = Answers<v1::Overview>;

    async fn describe(
        &self,
        request: Request<v1::DescribeRequest>,
    ) -> Result<Response<Self::DescribeStream>, Status> {
        let node = node_of(&request)?;
        let described = self.0.describe(&node, request.get_ref()).await.map_err(status)?;
        Ok(Response::new(Box::pin(described.map(|part| part.map_err(status)))))
    }

    async fn attend(
        &self,
        request: Request<Streaming<v1::Report>>,
    ) -> Result<Response<Self::AttendStream>, Status> {
        let node = node_of(&request)?;
        let from = request.extensions().get::<Guest>().map(|guest| guest.address.ip());
        self.0.hub.freshen().await.map_err(status)?;
        if self.0.members.caller(&node).is_none() {
            return Err(Status::permission_denied("this node does not belong here any more"));
        }
        let (number, wake) = self.0.roster().attend(node, from).map_err(senseless)?;
        let call = Attending { tracker: Arc::clone(&self.0), number, wake };
        let plans = stream::try_unfold((call, request.into_inner()), |(call, mut reports)| async {
            let plan = call.next(&mut reports).await?;
            Ok(plan.map(|plan| (plan, (call, reports))))
        });
        Ok(Response::new(Box::pin(plans)))
    }

    async fn who_has(
        &self,
        request: Request<v1::WhoHasRequest>,
    ) -> Result<Response<v1::WhoHasAnswer>, Status> {
        let node = node_of(&request)?;
        let asked = request.get_ref();
        let file = read_sha256(&asked.sha256).map_err(senseless)?;
        if asked.xorbs.len() > MOST_ASKED {
            return Err(Status::invalid_argument("too many xorbs are asked for at once"));
        }
        let xorbs: Result<Vec<_>, _> = asked.xorbs.iter().map(|xorb| read_xorb(xorb)).collect();
        let xorbs = xorbs.map_err(senseless)?;
        let (roster, now_ms) = (self.0.roster(), self.0.hub.env().now_ms());
        if !roster.is_good(&node, (&file, asked.size), &asked.ticket, now_ms) {
            return Err(Status::permission_denied("the ticket is not good, or not any more"));
        }
        Ok(Response::new(roster.who_has(&node, &xorbs)))
    }

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let tracker = Arc::clone(&self.0);
        tracker.hub.freshen().await.map_err(status)?;
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| value.strip_prefix("Bearer "));
        let from = may_try(&tracker.hub, &request)?;
        let caller = token.map(|token| tracker.hub.authenticate(token)).transpose();
        if let (Err(Error::BadToken), Some(token)) = (&caller, token) {
            tracker.hub.note_wrong_secret(from, token);
        }
        if !caller.map_err(status)?.is_some_and(|caller| caller.is_admin()) {
            return Err(Status::permission_denied("only an administrator of the hub may watch"));
        }
        let every = request.get_ref().every_ms;
        let pause = Duration::from_millis(every.into()).max(WATCHED_EVERY);
        let stop = tracker.hub.runner().stopping();
        let views = stream::unfold((tracker, false), move |(tracker, was_shown)| {
            let stop = stop.clone();
            async move {
                if was_shown && every == 0 {
                    return None;
                }
                if was_shown {
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => return None,
                        () = tracker.hub.env().sleep(pause) => {}
                    }
                }
                let view = tracker.overview();
                Some((Ok(view), (tracker, true)))
            }
        });
        Ok(Response::new(Box::pin(views)))
    }
}

/// A node's call, which is over when this is dropped.
struct Attending {
    tracker: Arc<Tracker>,
    number: NodeNumber,
    wake: Arc<Notify>,
}

impl Attending {
    /// The next plan, and what the node says until then; nothing when the call is over.
    async fn next(&self, reports: &mut Streaming<v1::Report>) -> Result<Option<v1::Plan>, Status> {
        let stop = self.tracker.hub.runner().stopping();
        loop {
            match self.tracker.roster().next_told(self.number) {
                Told::Plan(plan) => return Ok(Some(plan)),
                Told::Replaced => {
                    return Err(Status::aborted("the node has called again since"));
                }
                Told::Nothing => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    return Err(Status::unavailable("the hub is stopping: attend again"));
                }
                () = self.wake.notified() => {}
                report = reports.message() => match report? {
                    Some(report) => self.report(&report)?,
                    None => return Ok(None),
                },
            }
        }
    }

    fn report(&self, report: &v1::Report) -> Result<(), Status> {
        let env = self.tracker.hub.env();
        let now = (env.monotonic(), env.now_ms());
        let mut roster = self.tracker.roster();
        if roster.report(self.number, report, now).map_err(senseless)? {
            self.tracker.happened.notify_one();
        }
        Ok(())
    }
}

impl Drop for Attending {
    fn drop(&mut self) {
        self.tracker.roster().gone(self.number);
        self.tracker.happened.notify_one();
    }
}

/// Which node calls.
fn node_of<T>(request: &Request<T>) -> Result<PeerName, Status> {
    let name = caller_of(request)?.name;
    match name.role() {
        PeerRole::Node => Ok(name),
        PeerRole::Hub | PeerRole::Region => {
            Err(Status::permission_denied("only a node of this hub may call this"))
        }
    }
}

fn senseless(Senseless(reason): Senseless) -> Status {
    Status::invalid_argument(reason)
}

/// What the hub refuses, as gRPC says it.
pub(super) fn status(error: Error) -> Status {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::NotFound => Status::not_found(text),
        ErrorKind::Denied => Status::permission_denied(text),
        ErrorKind::Invalid => Status::invalid_argument(text),
        ErrorKind::Conflict => Status::aborted(text),
        ErrorKind::Unavailable => Status::unavailable(text),
        ErrorKind::Corrupt => Status::data_loss(text),
        ErrorKind::Internal => Status::internal("the hub made a mistake: see its log"),
    }
}
