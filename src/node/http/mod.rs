//! HTTP on the node's port: probes, metrics, and a page. No response contains keys or values.

pub(in crate::node) mod draft;
mod drawing;
mod history_json;
mod metrics_text;
mod page;
pub(in crate::node) mod report;
mod status_json;

use crate::base::time::Now;
use crate::node::command::login;
use crate::node::command::status::readiness;
use crate::node::conn::connection::Conn;
use crate::node::conn::phase::CloseReason;
use crate::node::conn::reconcile::limit_unauthenticated;
use crate::node::ids::ConnKey;
use crate::node::state::State;
use crate::node::tasks::{Job, ReplyForm, ReportKind, Waiter};
use crate::wire::http::{
    BadRequest, Delivery, HEAD_BYTES_MAX, Parsed, Request, Status, TEXT, basic_password, is_host_trusted,
    parse, put_response,
};

/// The most slow requests that are listed.
const SLOW_LISTED_MAX: usize = 20;

/// The most clients that are listed.
const CLIENTS_LISTED_MAX: usize = 10;

/// The most unlinked addresses that are listed.
const UNLINKED_LISTED_MAX: usize = 128;

/// The cost of a request, in keys: about that of a short response.
const COST: usize = 4;

/// A response before it is sent.
enum Response {
    /// A short text.
    Text(Status, String),
    /// A report, which is written in steps.
    Report(ReportKind),
    /// The answer to a wrong password, which may be delayed.
    WrongPassword(String),
}

/// Serves the request at the start of `input`. Returns the bytes consumed and its cost in keys; `None` if its head is
/// incomplete.
pub(in crate::node) fn serve(
    state: &mut State,
    now: Now,
    key: ConnKey,
    input: &[u8],
) -> Option<(usize, usize)> {
    let parsed = parse(input);
    let conn = state.conns.get_mut(key)?;
    conn.set_partial_line(parsed == Parsed::Partial);
    conn.requested();
    let closing = Delivery { is_head: false, keep_alive: false };
    let (consumed, delivery, response) = match parsed {
        Parsed::Partial => return None,
        Parsed::TooLong => {
            let sentence = format!("the request head is longer than {HEAD_BYTES_MAX} bytes");
            (input.len(), closing, Response::Text(Status::HeadTooLong, sentence))
        }
        Parsed::Broken(error) => {
            let status = match error {
                BadRequest::Method => Status::MethodNotAllowed,
                BadRequest::RequestLine | BadRequest::Header | BadRequest::NoHost | BadRequest::Body => {
                    Status::BadRequest
                }
            };
            (input.len(), closing, Response::Text(status, error.to_string()))
        }
        Parsed::Request { request, consumed } => {
            let delivery = Delivery { is_head: request.is_head, keep_alive: request.keep_alive };
            (consumed, delivery, respond(state, now, key, &request))
        }
    };
    state.stats.http_requests += 1;
    send(state, now, key, response, delivery);
    Some((consumed, COST))
}

fn respond(state: &mut State, now: Now, key: ConnKey, request: &Request<'_>) -> Response {
    let names = state.config.remote_peers.iter().filter_map(|peer| Some(peer.rsplit_once(':')?.0));
    if request.host.is_some_and(|host| !is_host_trusted(host, names)) {
        let sentence = "this Host may be a foreign name that leads here: use the IP address, localhost, or a name in \
                        remote_peers";
        return Response::Text(Status::Misdirected, sentence.to_owned());
    }
    match request.path {
        b"/livez" => return Response::Text(Status::Ok, "live".to_owned()),
        b"/readyz" => return ready(state),
        _ => {}
    }
    if let Err(refusal) = check_password(state, now, key, request) {
        return refusal;
    }
    match request.path {
        b"/" => Response::Report(ReportKind::Page),
        b"/metrics" if request.accepts_openmetrics => Response::Report(ReportKind::OpenMetrics),
        b"/metrics" => Response::Report(ReportKind::Prometheus),
        b"/status.json" => Response::Report(ReportKind::Status),
        b"/history.json" => Response::Report(ReportKind::History),
        _ => {
            let sentence =
                "not found; there are /, /livez, /readyz, /metrics, /status.json and /history.json";
            Response::Text(Status::NotFound, sentence.to_owned())
        }
    }
}

fn ready(state: &State) -> Response {
    let readiness = readiness(state);
    if readiness.is_ready() {
        let note = readiness.unlinked().map(|note| format!("\n{note}")).unwrap_or_default();
        return Response::Text(Status::Ok, format!("ready{note}"));
    }
    Response::Text(Status::Unavailable, readiness.reasons().join("\n"))
}

/// Checks the password of a request, if one is set. A correct one lifts the limits of unauthenticated connections, but
/// each request must contain it.
fn check_password(state: &mut State, now: Now, key: ConnKey, request: &Request<'_>) -> Result<(), Response> {
    if state.config.password.is_none() {
        return Ok(());
    }
    let Some(authorization) = request.authorization else {
        let sentence = "authentication needed: any user, and the password of this node";
        return Err(Response::Text(Status::Unauthorized, sentence.to_owned()));
    };
    // The password of the node is never empty.
    let given = basic_password(authorization).unwrap_or_default();
    login::authenticate(state, now, key, login::USER, &given)
        .map_err(|error| Response::WrongPassword(error.to_string()))?;
    if let Some(conn) = state.conns.get_mut(key) {
        conn.authenticate();
    }
    Ok(())
}

/// Sends a response; a report is sent once it is written. Then closes the connection, unless `delivery` keeps it alive.
fn send(state: &mut State, now: Now, key: ConnKey, response: Response, delivery: Delivery) {
    let unsent_before = state.conns.get(key).map_or(0, Conn::unsent);
    match response {
        Response::WrongPassword(text) => {
            let mut answer = Vec::new();
            put_response(&mut answer, Status::Unauthorized, TEXT, delivery, format!("{text}\n").as_bytes());
            login::refuse(state, now, key, answer);
        }
        Response::Text(status, mut text) => {
            text.push('\n');
            let State { conns, pool, .. } = state;
            if let Some(conn) = conns.get_mut(key) {
                conn.reply(pool, |out| {
                    put_response(out, status, TEXT, delivery, text.as_bytes());
                });
            }
        }
        Response::Report(kind) => {
            if let Some(conn) = state.conns.get_mut(key) {
                let form = ReplyForm::Http(report::content_type(kind), delivery);
                let waiter = Waiter { conn: key, slot: conn.replies.hold(), form };
                let is_same = |job: &Job| matches!(job, Job::Report(other, None) if *other == kind);
                state.tasks.wait(waiter, Job::Report(kind, None), is_same);
            }
        }
    }
    limit_unauthenticated(state, now, key, unsent_before);
    if let Some(conn) = state.conns.get_mut(key).filter(|conn| conn.is_serving())
        && !delivery.keep_alive
    {
        conn.begin_closing(CloseReason::Done, now.mono, &mut state.pool);
    }
}
