//! Invalid and incomplete frames on a link: an invalid one ends the link with a BYE and its reason, at once if the
//! header is invalid; an incomplete one has time as long as bytes arrive.

use crate::kit::peer::{
    Face, Link, Received, World, beat, block, bytes_of, deltas, head, header, heartbeat, linked, ms, none,
    piece,
};
use olivia::config::Config;
use olivia::limits::Limits;
use olivia::node::CloseReason;
use olivia::wire::frame::{Address, Body, HEADER_BYTES, Wanted, put_peers};

/// One good frame of each kind, in the order of their numbers.
fn samples() -> Vec<Vec<u8>> {
    let mut peers = Vec::new();
    let address = Address { id: [1; 16], addr: "127.0.0.1:7000".parse().unwrap() };
    put_peers(&mut peers, 0, std::iter::once(address));
    let one = |body| bytes_of(&[(1, body)]);
    vec![
        one(beat(head(1, 0), false)),
        deltas(0, &[1, 2]),
        block(0, 0, [0; 8]),
        one(Body::Snap { head: head(1, 0), size_log2: 1 }),
        piece(0, &[0; 16]),
        one(Body::SnapEnd),
        one(Body::Resync(Some(head(1, 0)))),
        one(Body::Get { key: b"own", wanted: Wanted::Value }),
        one(Body::Value { hash: 1, version: 1, left_ms: None, value: b"v" }),
        one(none(1)),
        peers,
        one(Body::Bye(b"bye")),
    ]
}

/// Sends bytes that are no frame over a new link; returns the reason of BYE.
fn broken(bytes: &[u8]) -> String {
    let (mut world, face, mut link) = linked();
    let frames = world.driver.node.stats().frames;
    world.driver.send(link.conn, bytes);
    let reason = world.bye_reason(&mut link);
    assert_eq!(world.driver.node.stats().frames_broken, 1, "{reason}");
    assert_eq!(world.driver.node.stats().frames, frames, "{reason}");
    assert!(!world.is_linked(&face));
    world.driver.shut(link.conn);
    assert_eq!(world.closed(CloseReason::Protocol), 1, "{reason}");
    world.check();
    reason
}

#[test]
fn bytes_that_are_no_frame_end_the_link_at_once() {
    for (bytes, reason) in [
        (vec![b'P'], "a frame begins with 0xb1, not with 0x50".to_owned()),
        (header(26, 0, 0), "there is no frame of kind 26".to_owned()),
        (header(2, 0, 16_385), "DELTA of 16385 bytes is longer than its limit of 16384".to_owned()),
        (header(10, 0, 23), "VALUE of 23 bytes, but it needs ".to_owned()),
    ] {
        let given = broken(&bytes);
        assert!(given.starts_with(&reason), "{given}");
    }
}

#[test]
fn unknown_flags_end_the_link() {
    for sample in samples() {
        let kind = sample[1];
        let allowed = u16::from(kind == 1 || kind == 9);
        for flag in [1u16, 2, 1 << 15].into_iter().filter(|flag| *flag != allowed) {
            let mut frame = sample.clone();
            frame[2..4].copy_from_slice(&flag.to_le_bytes());
            let reason = broken(&frame);
            assert!(reason.contains(" has no flags "), "{kind} {flag:#06x}: {reason}");
        }
    }
}

#[test]
fn frame_truncated_by_the_end_of_the_stream_does_nothing() {
    let mut world = World::new(Config::default());
    let face = Face::new(1);
    let mut times = 0;
    for sample in samples() {
        for cut in 0..sample.len() {
            let link = world.dial(&face);
            let frames = world.driver.node.stats().frames;
            world.driver.send(link.conn, &sample[..cut]);
            assert!(world.is_linked(&face));
            world.driver.shut(link.conn);
            times += 1;
            assert!(world.driver.is_closed(link.conn) && !world.is_linked(&face));
            assert_eq!(world.driver.node.stats().frames, frames);
            assert_eq!(world.closed(CloseReason::PeerLeft), times);
            for (dial, _) in std::iter::from_fn(|| world.driver.next_dial()).collect::<Vec<_>>() {
                world.driver.lose(dial);
            }
            world.driver.forget_closed();
        }
    }
    assert_eq!(world.driver.node.stats().frames_broken, 0);
}

#[test]
fn frames_byte_by_byte_are_frames() {
    let (mut world, _, mut link) = linked();
    let mut bytes = bytes_of(&[heartbeat(7)]);
    bytes.extend(bytes_of(&[(8, Body::Get { key: b"own", wanted: Wanted::Value })]));
    for byte in bytes {
        world.driver.send(link.conn, [byte]);
    }
    let received = world.frames(&mut link);
    assert!(matches!(received[0], Received::Heartbeat { request: 7, is_answer: true, .. }), "{received:?}");
    assert_eq!(received[1], Received::Value { request: 8, value: b"1".to_vec() });
}

#[test]
fn half_a_frame_then_silence_ends_the_link_after_three_heartbeats() {
    for sample in samples() {
        let (mut world, face, link) = linked();
        // One byte per heartbeat keeps the link open.
        for byte in &sample[..HEADER_BYTES] {
            world.driver.pass(ms(1_500));
            world.driver.send(link.conn, [*byte]);
            assert!(world.is_linked(&face) || sample.len() == HEADER_BYTES);
        }
        if sample.len() == HEADER_BYTES {
            continue;
        }
        world.driver.pass(ms(2_999));
        assert!(world.is_linked(&face));
        world.driver.pass(ms(1));
        assert!(!world.is_linked(&face) && world.driver.is_closed(link.conn));
        assert_eq!(world.closed(CloseReason::PeerSilent), 1);
    }
}

/// Sends so many bytes in pieces, and the most that all buffers held meanwhile.
fn poured(world: &mut World, link: &Link, bytes: usize) -> u64 {
    let mut most = 0;
    for _ in 0..bytes / 1_000 {
        world.driver.send(link.conn, [b'x'; 1_000]);
        most = most.max(world.stat("buffers_bytes"));
    }
    world.driver.send(link.conn, vec![b'x'; bytes % 1_000]);
    most
}

#[test]
fn keys_and_values_over_the_limits_are_skipped_without_buffering() {
    let limits = Limits { key_bytes_max: 100, value_bytes_max: 1_000, ..Limits::default() };
    let mut world = World::new(Config { limits, ..Config::default() });
    let face = Face::new(1);
    let mut link = world.linked(&face);
    let before = world.stat("buffers_bytes");
    for (kind, length) in [(9, 101), (9, 65_536), (10, 1_025), (10, 200_000)] {
        world.driver.send(link.conn, header(kind, 0, length));
        let most = poured(&mut world, &link, usize::try_from(length).unwrap());
        assert!(most <= before + 4_096, "{most} bytes");
        assert!(world.is_linked(&face));
    }
    assert_eq!(world.driver.node.stats().frames_oversized, 4);
    world.frames(&mut link);
    world.send(&link, &[heartbeat(9)]);
    assert!(matches!(world.frames(&mut link)[0], Received::Heartbeat { request: 9, .. }));
}

/// FRAGMENT frames with these payloads.
fn fragments<'p>(payloads: impl Iterator<Item = &'p [u8]>) -> Vec<u8> {
    payloads.flat_map(|part| [&header(25, 0, u32::try_from(part.len()).unwrap()), part].concat()).collect()
}

#[test]
fn frame_in_fragments_is_executed_once_however_it_is_cut_and_others_pass_between() {
    for size in [1, 19, 20, 21, 1_000, 50_000, 131_072] {
        let mut world = World::new(Config::default());
        let mut link = world.linked(&Face::new(1));
        let value = vec![b'v'; 200_000];
        world.begin("GET far\n");
        let request = world.queries(&mut link)[0];
        let hash = world.hash("far");
        let answer = bytes_of(&[(request, Body::Value { hash, version: 1, left_ms: None, value: &value })]);
        let frames = world.driver.node.stats().frames;
        for (at, part) in answer.chunks(size).enumerate() {
            let bytes = fragments(std::iter::once(part));
            // Cut in the middle of a header and of a fragment, too.
            let (first, second) = bytes.split_at(bytes.len() / (1 + at % 3));
            world.driver.send(link.conn, first);
            world.driver.send(link.conn, second);
            if at == 0 {
                world.send(&link, &[heartbeat(7)]);
            }
        }
        assert_eq!(world.driver.node.stats().frames, frames + 2, "{size}");
        assert_eq!(world.replies().len(), ":GOT far:\n".len() + value.len(), "{size}");
        world.check();
    }
}

#[test]
fn fragments_that_are_not_exactly_one_frame_end_the_link() {
    let get = bytes_of(&[(1, Body::Get { key: b"own", wanted: Wanted::Value })]);
    let whole = "FRAGMENTs have to be exactly one frame of another kind";
    for (payloads, reason) in [
        (vec![[&get[..], b"x"].concat()], whole),
        (vec![[&get[..], &get[..]].concat()], whole),
        (vec![get[..5].to_vec(), [&get[5..], b"x"].concat()], whole),
        (vec![fragments(std::iter::once(&get[..]))], whole),
        (vec![b"GET own\n".to_vec()], "a frame begins with 0xb1, not with 0x47"),
        (vec![header(26, 0, 0).to_vec()], "there is no frame of kind 26"),
    ] {
        assert_eq!(broken(&fragments(payloads.iter().map(Vec::as_slice))), reason);
    }
}

#[test]
fn value_in_fragments_over_the_limit_is_skipped_and_the_link_stays() {
    let limits = Limits { value_bytes_max: 150_000, ..Limits::default() };
    let mut world = World::new(Config { limits, ..Config::default() });
    let face = Face::new(1);
    let mut link = world.linked(&face);
    for size in [1_000, 100_000, 131_072] {
        world.begin("GET far\n");
        let request = world.queries(&mut link)[0];
        let (hash, value) = (world.hash("far"), vec![b'v'; 600_000]);
        let answer = bytes_of(&[(request, Body::Value { hash, version: 1, left_ms: None, value: &value })]);
        world.driver.send(link.conn, fragments(answer.chunks(size)));
        assert_eq!(world.replies(), ":GOT \n", "{size}");
        world.send(&link, &[heartbeat(7)]);
        assert!(world.frames(&mut link).iter().any(|frame| matches!(frame, Received::Heartbeat { .. })));
    }
    assert!(world.is_linked(&face));
    world.check();
}
