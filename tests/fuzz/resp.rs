//! Fuzz target: RESP requests, the same however the input is cut, and the same when written and parsed again.

use olivia::wire::resp::encode::{array, bulk, error};
use olivia::wire::resp::parse::{Parsed, Parser, Progress, ProtocolError, RequestLimits, likely_key};

/// Small, so that inputs reach them.
const LIMITS: RequestLimits =
    RequestLimits { args_max: 20, bulk_bytes_max: 200, request_bytes_max: 400, is_unauthenticated: false };

/// A request with memory of its own: its arguments and the bytes it took.
type Owned = (Vec<Vec<u8>>, usize);

/// The first byte chooses the cuts and whether the limits are those before AUTH, the others are the input.
pub fn run(data: &[u8]) {
    let Some((&choice, input)) = data.split_first() else { return };
    let limits = RequestLimits { is_unauthenticated: choice % 2 == 1, ..LIMITS };
    let mut at = 0;
    while let Ok(Some((args, consumed))) = check(&input[at..], usize::from(choice / 2) + 1, limits) {
        if let (Some((name, key)), [first, second, ..]) = (likely_key(&input[at..]), &args[..]) {
            assert_eq!([name, key], [&first[..], second]);
        }
        assert!(args.len() <= 20 && args.iter().map(Vec::len).sum::<usize>() <= consumed);
        again(&args);
        at += consumed;
    }
    likely_key(&input[at..]);
}

/// The first request of the input, in pieces of `step` bytes as in one.
fn check(input: &[u8], step: usize, limits: RequestLimits) -> Result<Option<Owned>, ProtocolError> {
    let whole = parse(input, &mut Progress::default(), limits);
    let mut progress = Progress::default();
    let mut needed = 0;
    for cut in (0..input.len()).step_by(step).chain([input.len()]) {
        let part = parse(&input[..cut], &mut progress, limits);
        match &part {
            Ok(None) => assert!(cut >= needed || progress_needs(&input[..cut], progress, limits) == needed),
            Ok(Some(_)) | Err(_) => {
                assert!(cut >= needed, "{cut} bytes decided, {needed} were needed: {}", input.escape_ascii());
                assert_eq!(part, whole, "cut at {cut}: {}", input.escape_ascii());
                return whole;
            }
        }
        needed = progress_needs(&input[..cut], progress, limits);
        assert!(needed > cut);
    }
    assert_eq!(whole, Ok(None), "{}", input.escape_ascii());
    whole
}

/// The bytes that an unfinished request needs; to compute them again changes nothing.
fn progress_needs(input: &[u8], progress: Progress, limits: RequestLimits) -> usize {
    let mut same = progress;
    match Parser::default().parse(input, &mut same, limits) {
        Parsed::Partial { bytes } => {
            assert_eq!(same, progress);
            bytes
        }
        parsed @ (Parsed::Request(_) | Parsed::Broken(_)) => panic!("{parsed:?} after a partial request"),
    }
}

fn parse(
    input: &[u8],
    progress: &mut Progress,
    limits: RequestLimits,
) -> Result<Option<Owned>, ProtocolError> {
    match Parser::default().parse(input, progress, limits) {
        Parsed::Request(request) => {
            Ok(Some((request.args().iter().map(<[u8]>::to_vec).collect(), request.consumed)))
        }
        Parsed::Partial { .. } => Ok(None),
        Parsed::Broken(broken) => {
            let mut out = Vec::new();
            error(&mut out, "ERR", broken);
            assert!(out.starts_with(b"-ERR Protocol error: ") && out.ends_with(b"\r\n"));
            assert_eq!(
                out.iter().filter(|byte| byte.is_ascii_control()).count(),
                2,
                "{}",
                out.escape_ascii()
            );
            Err(broken)
        }
    }
}

/// Writes the request and parses it again.
fn again(args: &[Vec<u8>]) {
    let mut text = Vec::new();
    array(&mut text, args.len());
    args.iter().for_each(|arg| bulk(&mut text, arg));
    let read =
        parse(&text, &mut Progress::default(), RequestLimits { request_bytes_max: u32::MAX, ..LIMITS });
    assert_eq!(read, Ok(Some((args.to_vec(), text.len()))));
}
