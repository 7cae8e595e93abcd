use super::{
    Answer, ConnectArgs, HINTS_MAX, HandshakeError, Hex, LINE_BYTES_MAX, Links, Offer, Proof, Prover,
    begins_handshake, derive_hash_secret, keyed_bytes, public_hash_secret, put_counter_offer, put_full,
    put_offer, put_proof, put_welcome, read_answer, read_request,
};

const SECRET: &[u8] = b"0123456789abcdef0123";
const DIALLER: Offer<'_> = Offer {
    node: [1; 16],
    listen: b"0.0.0.0:5454",
    nonce: [2; 16],
    hash: 0xAB,
    wall_ms: 7,
    links: Links::Unstated,
};
const ACCEPTOR: Offer<'_> = Offer {
    node: [3; 16],
    listen: b"[fd00::2]:6000",
    nonce: [4; 16],
    hash: 0xAB,
    wall_ms: 7,
    links: Links::Unstated,
};

/// One line without its end, written by `put`.
fn line(put: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    put(&mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(text.len() <= LINE_BYTES_MAX && text.find('\n') == Some(text.len() - 1), "{text}");
    text.trim_end().to_owned()
}

fn request(text: &str) -> Result<ConnectArgs<'_>, HandshakeError<'_>> {
    read_request(text.split_once("REQUEST connect ").unwrap_or(("", text)).1.as_bytes())
}

fn sentence(text: &str) -> String {
    request(text).unwrap_err().to_string()
}

#[test]
fn lines_of_a_handshake_read_back_on_the_other_side() {
    let offer = line(|out| put_offer(out, &DIALLER));
    let one = "01010101010101010101010101010101";
    let two = "02020202020202020202020202020202";
    let words = format!("proto=2,node={one},listen=0.0.0.0:5454,nonce={two},hash=00000000000000ab,clock=7");
    assert_eq!(offer, format!("h1:REQUEST connect {words}"));
    let Ok(ConnectArgs::Offer(read)) = request(&offer) else { panic!("{offer}") };
    assert_eq!(read, DIALLER);
    for secret in [None, Some(SECRET)] {
        let accepts = Proof::of(secret, Prover::Acceptor, &ACCEPTOR, &DIALLER);
        let back = line(|out| put_counter_offer(out, b"h1", &ACCEPTOR, &accepts));
        let Ok(Answer::Offer(read, proof)) = read_answer(back.as_bytes()) else { panic!("{back}") };
        assert!(read == ACCEPTOR && accepts.matches(&proof));
        let connects = Proof::of(secret, Prover::Dialler, &DIALLER, &ACCEPTOR);
        let second = line(|out| put_proof(out, &connects));
        let Ok(ConnectArgs::Proof(proof)) = request(&second) else { panic!("{second}") };
        assert!(connects.matches(&proof));
        assert_eq!(accepts.matches(&proof), secret.is_none(), "a proof serves both ends");
    }
    let welcome = line(|out| put_welcome(out, b"h2"));
    assert!(matches!(read_answer(welcome.as_bytes()), Ok(Answer::Welcome)), "{welcome}");
}

#[test]
fn offer_states_that_a_node_has_no_link_or_no_room_for_one() {
    for (links, end) in [(Links::None, ",links=none"), (Links::Full, ",links=full")] {
        let offer = Offer { links, ..DIALLER };
        let text = line(|out| put_offer(out, &offer));
        assert!(text.ends_with(end), "{text}");
        let Ok(ConnectArgs::Offer(read)) = request(&text) else { panic!("{text}") };
        assert_eq!(read, offer);
    }
    let text = line(|out| put_offer(out, &DIALLER)) + ",links=7";
    let Ok(ConnectArgs::Offer(read)) = request(&text) else { panic!("{text}") };
    assert_eq!(read, DIALLER);
}

#[test]
fn refusal_of_a_full_node_has_at_most_eight_hints() {
    let longest = |port: u16| format!("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:{port}");
    let hints: Vec<_> = (10_000..10_020).map(|port| longest(port).parse().unwrap()).collect();
    for count in [0, 1, HINTS_MAX, 20] {
        let text = line(|out| put_full(out, b"h2", hints.iter().take(count).copied()));
        let Ok(Answer::Full(read)) = read_answer(text.as_bytes()) else { panic!("{text}") };
        assert!(read.iter().eq(hints.iter().take(count.min(HINTS_MAX)).copied()), "{text}");
    }
    let Ok(Answer::Full(read)) = read_answer(b"h2:FULFILLED full,,1.2.3.4:0,x,1.2.3.4:5") else { panic!() };
    assert_eq!(read.iter().collect::<Vec<_>>(), ["1.2.3.4:5".parse().unwrap()]);
    assert!(read_answer(b"h2:FULFILLED fuller").is_err() && read_answer(b"h1:FULFILLED full").is_err());
}

#[test]
fn proofs_and_secrets_are_those_that_another_implementation_computes() {
    // Python: hmac.new(key, message, hashlib.sha256), the messages packed as specified.
    let proof = Proof::of(Some(SECRET), Prover::Acceptor, &ACCEPTOR, &DIALLER);
    let expected = "proof=340768b3868000cf2a11f9ee47bb2c45b5cb497dad76e8a7722d638846222439";
    assert!(line(|out| put_proof(out, &proof)).ends_with(expected));
    let proof = Proof::of(Some(SECRET), Prover::Dialler, &DIALLER, &ACCEPTOR);
    let expected = "proof=6636a969fa34e77b85cf3686717fa832923441a5d4d5d83085203ca3baaab267";
    assert!(line(|out| put_proof(out, &proof)).ends_with(expected));
    let secret = derive_hash_secret(SECRET);
    assert_eq!(Hex(&secret[..8]).to_string(), "7c0dad1867da8186");
    assert_eq!(Hex(&secret[184..]).to_string(), "197a17ce09b478a2");
    assert_eq!(Hex(&public_hash_secret()[..8]).to_string(), "80c50f78ae92318e");
    assert_eq!(Hex(&keyed_bytes(&[7; 32], 5)).to_string(), "d1fe13f0f8a0f52b14f243298a8aa9d6");
}

#[test]
fn proof_for_anything_else_does_not_match() {
    let proof = |secret: &[u8], own: &Offer<'_>, other: &Offer<'_>| {
        Proof::of(Some(secret), Prover::Dialler, own, other)
    };
    let right = proof(SECRET, &DIALLER, &ACCEPTOR);
    assert!(right.matches(&proof(SECRET, &Offer { hash: 7, ..DIALLER }, &ACCEPTOR)), "hash is not proved");
    for wrong in [
        proof(b"0123456789abcdef0124", &DIALLER, &ACCEPTOR),
        proof(SECRET, &ACCEPTOR, &DIALLER),
        proof(SECRET, &Offer { node: [9; 16], ..DIALLER }, &ACCEPTOR),
        proof(SECRET, &Offer { nonce: [9; 16], ..DIALLER }, &ACCEPTOR),
        proof(SECRET, &DIALLER, &Offer { nonce: [9; 16], ..ACCEPTOR }),
        // The same bytes in all, cut elsewhere.
        proof(
            SECRET,
            &Offer { listen: b"0.0.0.0:545", ..DIALLER },
            &Offer { listen: b"4[fd00::2]:6000", ..ACCEPTOR },
        ),
        Proof::of(None, Prover::Dialler, &DIALLER, &ACCEPTOR),
    ] {
        assert!(!right.matches(&wrong) && !wrong.matches(&right), "{wrong:?}");
    }
}

#[test]
fn words_may_come_in_any_order_with_spaces_quotes_and_unknown_words() {
    let (node, nonce) = ("AB".repeat(16), "cd".repeat(16));
    let text = format!(
        " hash=00000000000000FF ,clock=12, x=,nonce=\"{nonce}\" ,y=\"a,\\\"b=\\\\\",listen = \"[::]:1\",node={node},proto=2,x=2"
    );
    let Ok(ConnectArgs::Offer(offer)) = request(&text) else { panic!("{:?}", request(&text)) };
    let expected = Offer {
        node: [0xAB; 16],
        listen: b"[::]:1",
        nonce: [0xCD; 16],
        hash: 255,
        wall_ms: 12,
        links: Links::Unstated,
    };
    assert_eq!(offer, expected);
}

#[test]
fn each_error_is_reported() {
    let good = line(|out| put_offer(out, &DIALLER));
    let without = |word: &str| {
        let words = good.split_once("connect ").unwrap().1.split(',');
        words.filter(|arg| !arg.starts_with(word)).collect::<Vec<_>>().join(",")
    };
    for (word, end) in [
        ("proto", ": a number"),
        ("node", ": 32 hex digits"),
        ("listen", ": IP:port, such as 10.0.0.2:5454 or [fd00::2]:5454"),
        ("nonce", ": 32 hex digits"),
        ("hash", ": 16 hex digits"),
        ("clock", ": milliseconds since 1970"),
    ] {
        assert_eq!(sentence(&without(word)), format!("connect needs {word}{end}"));
        assert_eq!(sentence(&format!("{good},{word}=1")), format!("connect has {word} twice"));
        let wrong = sentence(&format!("{},{word}=x", without(word)));
        assert!(wrong.contains("'x'"), "{wrong}");
    }
    assert_eq!(
        sentence("proto=1,node=1"),
        "proto '1' is not spoken here; this node speaks 2: run one version"
    );
    assert_eq!(sentence("a=1,b"), "connect takes word=field; 'b' has no =");
    for text in ["", " ", "a=1,", ",a=1", "a=1,,b=1"] {
        assert!(sentence(text).contains("empty argument"), "{text:?}: {}", sentence(text));
    }
    for text in ["a=\"", "a=\"\\\"", "a=\"b\\"] {
        assert!(sentence(text).contains("never closes"), "{text:?}: {}", sentence(text));
    }
    assert!(sentence("a=\"b\"c,d=e").contains("'c' after a closing quote"));
    assert!(sentence("proof=12").contains("it takes 64 hex digits"));
    assert!(sentence("listen=1.2.3.4:0,proof=").contains("in a second request"));
    for listen in ["1.2.3.4:0", "localhost:1", "::1", "1.2.3.4"] {
        let wrong = sentence(&format!("{},listen={listen}", without("listen")));
        assert!(wrong.contains("it takes IP:port"), "{wrong}");
    }
    let long = format!("a={}", "x".repeat(LINE_BYTES_MAX));
    assert!(sentence(&long).contains("longer than 1024 bytes"));
}

#[test]
fn answer_that_is_none_of_a_handshake_is_distinguished_from_a_refusal() {
    for line in ["", "h1", "+OK", "h1:GOT ", "h2:FULFILLED bye", "h1:FULFILLED welcome", "h2:FULFILLED a=1"] {
        assert!(read_answer(line.as_bytes()).is_err(), "{line}");
    }
    for line in ["h1:ERR no, go away", ":ERR no, go away", "h2:ERR no, go away"] {
        let Ok(Answer::Refused(sentence)) = read_answer(line.as_bytes()) else { panic!("{line}") };
        assert_eq!(sentence, b"no, go away");
    }
    let mut back = line(|out| put_offer(out, &ACCEPTOR)).replace("REQUEST connect", "FULFILLED");
    let error = read_answer(back.as_bytes()).unwrap_err().to_string();
    assert!(error.starts_with("connect needs proof: 64 hex digits"), "{error}");
    back.push_str(&"x".repeat(LINE_BYTES_MAX));
    assert!(matches!(read_answer(back.as_bytes()), Err(HandshakeError::TooLong)));
}

/// The address of a node that states `listen` and is seen from `from`.
fn seen(listen: &str, from: &str) -> String {
    let offer = Offer { listen: listen.as_bytes(), ..DIALLER };
    offer.listen_addr(from.parse().unwrap()).unwrap().to_string()
}

#[test]
fn unspecified_host_is_where_the_node_is_seen_from() {
    assert_eq!(seen("10.0.0.2:5454", "10.0.0.9:40000"), "10.0.0.2:5454");
    assert_eq!(seen("0.0.0.0:5454", "10.0.0.9:40000"), "10.0.0.9:5454");
    assert_eq!(seen("[::]:5454", "10.0.0.9:40000"), "10.0.0.9:5454");
    assert_eq!(seen("[::]:5454", "[::ffff:10.0.0.9]:40000"), "10.0.0.9:5454");
    assert_eq!(seen("[::]:5454", "[fe80::1%3]:40000"), "[fe80::1%3]:5454");
}

#[test]
fn loopback_of_another_machine_is_where_the_node_is_seen_from() {
    assert_eq!(seen("127.0.0.1:5454", "127.0.0.1:40000"), "127.0.0.1:5454");
    assert_eq!(seen("127.0.0.1:5454", "[::1]:40000"), "127.0.0.1:5454");
    assert_eq!(seen("10.0.0.2:5454", "127.0.0.1:40000"), "10.0.0.2:5454");
    for listen in ["127.0.0.1:5454", "[::1]:5454", "[::ffff:127.0.0.1]:5454"] {
        assert_eq!(seen(listen, "10.0.0.9:40000"), "10.0.0.9:5454");
    }
}

#[test]
fn first_line_of_a_handshake_is_distinguished_from_one_of_a_client() {
    let first = |input: &str| begins_handshake(input.as_bytes());
    assert_eq!(first("node:REQUEST connect proto=2,more\nrest"), Some(true));
    assert_eq!(first("request Connect a=1\r\n"), Some(true));
    assert_eq!((first(""), first("node:REQUEST connect a=1")), (None, None));
    for client in [
        "PING\n",
        "\n",
        "REQUEST connect\n",
        "REQUEST peers\n",
        "*1\r\n$4\r\nPING\r\n",
        "a,b:REQUEST connect a\n",
    ] {
        assert_eq!(first(client), Some(false), "{client:?}");
    }
    assert_eq!(first(&"x".repeat(LINE_BYTES_MAX + 2)), Some(false));
}
