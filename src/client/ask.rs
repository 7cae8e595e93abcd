//! `olivia ask`: one request, its reply as one field per line; of MESH as a table.

use super::connection::{Connection, TIME_LIMITS};
use super::{ClientError, table, terminal};

/// Sends the request and prints the reply.
pub(super) fn run(address: &str, request: &str, password: Option<&[u8]>) -> Result<(), ClientError> {
    if request.trim().is_empty() || request.contains(['\n', '\r']) {
        return Err(ClientError::Usage(
            "usage: olivia ask HOST:PORT 'REQUEST', with one request on one line".to_owned(),
        ));
    }
    let reply = Connection::open(address, password, TIME_LIMITS)?.ask(request.as_bytes())?;
    let fields = reply.fields();
    let lines = match reply.word.as_str() {
        "MESH" => table::lines(&table::peers(&fields)),
        // A sentence, which has commas of its own.
        "HELP" => vec![reply.body.clone()],
        _ => fields.into_iter().map(str::to_owned).collect(),
    };
    terminal::print(&lines)
}
