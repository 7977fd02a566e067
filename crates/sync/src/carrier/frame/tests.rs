use proptest::prelude::*;

use super::*;

fn request() -> impl Strategy<Value = Request> {
    let span = (any::<[u8; 32]>(), 0..8000_u32, 1..192_u32).prop_map(|(xorb, start, count)| Span {
        xorb: XorbHash::from_bytes(xorb),
        chunks: start..start + count,
    });
    let urgency = prop_oneof![Just(Urgency::Client), Just(Urgency::Swarm), Just(Urgency::Region)];
    (proptest::collection::vec(span, 1..80), 0..60_000_u64, urgency).prop_map(
        |(spans, patience, urgency)| Request {
            spans,
            expected: Vec::new(),
            patience: Duration::from_millis(patience),
            urgency,
        },
    )
}

#[test]
fn a_call_and_an_answer_are_the_bytes_of_the_page() {
    let spans = vec![Span { xorb: XorbHash::from_bytes([7; 32]), chunks: 2..5 }];
    let patience = Duration::from_millis(0x0102);
    let request = Request { spans, expected: Vec::new(), patience, urgency: Urgency::Swarm };
    let call = CallKind::Request.encode(&encode_request(&request));
    let mut expected = vec![1, 49, 0, 0, 0, 1, 2, 1, 0, 0, 1, 0, 0, 0];
    expected.extend([7; 32]);
    expected.extend([2, 0, 0, 0, 5, 0, 0, 0]);
    assert_eq!(call, expected);
    let answer = AnswerHead { kind: AnswerKind::Stored, span: 3, first: 4, end: 6, length: 0x0201 };
    assert_eq!(answer.encode(), [1, 3, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0, 1, 2, 0, 0]);
}

#[test]
fn lengths_beyond_a_limit_are_refused_before_anything_is_read() {
    for (kind, most) in [(1, 9 + 40 * MOST_SPANS), (2, MOST_PERMIT_BYTES), (3, 4 + 32 * 1024)] {
        let head = |length: usize| {
            let [a, b, c, d] = u32::try_from(length).expect("small").to_le_bytes();
            CallKind::decode(&[kind, a, b, c, d])
        };
        assert!(head(most).is_ok(), "{kind}");
        assert!(head(most + 1).is_err(), "{kind}");
    }
    assert!(CallKind::decode(&[0; CALL_HEAD]).is_err() && CallKind::decode(&[4; 5]).is_err());
    for (kind, most) in
        [(0, LONGEST_RUN), (1, LONGEST_RUN), (2, 0), (3, 0), (4, MOST_HELD_BYTES), (5, MOST_WORDS)]
    {
        let head = |length: usize| {
            let mut head = [0; ANSWER_HEAD];
            head[0] = kind;
            head[13..].copy_from_slice(&u32::try_from(length).expect("small").to_le_bytes());
            AnswerHead::decode(&head)
        };
        assert!(head(most).is_ok(), "{kind}");
        assert!(head(most + 1).is_err(), "{kind}");
    }
    assert!(AnswerHead::decode(&[6; ANSWER_HEAD]).is_err());
}

#[test]
fn requests_that_no_source_could_answer_are_refused() {
    let span = |start, end| Span { xorb: XorbHash::ZERO, chunks: start..end };
    for (spans, why) in [
        (vec![], "no span"),
        (vec![span(3, 3)], "an empty span"),
        (vec![Span { xorb: XorbHash::ZERO, chunks: Range { start: 4, end: 3 } }], "backwards"),
        (vec![span(0, 8193)], "more chunks than a xorb has"),
        (vec![span(0, 8192), span(0, 8192), span(0, 1)], "too many chunks"),
        (vec![span(0, 1); MOST_SPANS + 1], "too many spans"),
    ] {
        assert!(chunks_of(&spans).is_err(), "{why}");
        let urgency = Urgency::Client;
        let request = Request { spans, expected: Vec::new(), patience: Duration::ZERO, urgency };
        assert!(decode_request(&encode_request(&request)).is_err(), "{why}");
    }
    assert_eq!(chunks_of(&[span(0, 8192), span(0, 8192)]), Ok(MOST_CHUNKS));
}

#[test]
fn a_peer_that_has_too_many_ranges_tells_of_the_first() {
    let every_other: Vec<_> = (0..4096).map(|at| 2 * at..2 * at + 1).collect();
    let held = vec![every_other; 64];
    let body = encode_held(&held);
    assert!(body.len() <= MOST_HELD_BYTES);
    let told = decode_held(&body, 64).expect("own bytes");
    assert_eq!(told[..31], held[..31]);
    assert!(told[63].is_empty());
}

#[test]
fn words_of_a_peer_are_cut_and_never_control_a_terminal() {
    let long = "é".repeat(MOST_WORDS);
    assert_eq!(cut_words(&long).len(), MOST_WORDS);
    assert_eq!(clean_words(b"no\x1b[2J\xffway"), "no [2J\u{fffd}way");
}

proptest! {
    #[test]
    fn requests_round_trip(request in request()) {
        let again = decode_request(&encode_request(&request)).expect("own bytes");
        prop_assert_eq!(again.spans, request.spans);
        prop_assert_eq!(again.patience, request.patience);
        prop_assert_eq!(again.urgency, request.urgency);
    }

    #[test]
    fn holdings_round_trip(
        xorbs in proptest::collection::vec(any::<[u8; 32]>(), 0..20),
        gaps in proptest::collection::vec((1..50_u32, 1..50_u32), 0..40),
    ) {
        let xorbs: Vec<_> = xorbs.into_iter().map(XorbHash::from_bytes).collect();
        prop_assert_eq!(decode_xorbs(&encode_xorbs(&xorbs)).expect("own bytes"), xorbs.clone());
        let mut at = 0;
        let ranges: Vec<_> = gaps
            .into_iter()
            .map(|(gap, length)| {
                let start = at + gap;
                at = start + length;
                start..at
            })
            .collect();
        let held = vec![ranges; xorbs.len()];
        prop_assert_eq!(decode_held(&encode_held(&held), xorbs.len()).expect("own bytes"), held);
    }

    #[test]
    fn noise_is_refused_and_never_panics(noise: Vec<u8>, head: [u8; ANSWER_HEAD]) {
        drop(decode_request(&noise));
        drop(decode_xorbs(&noise));
        drop(decode_held(&noise, 3));
        if let Ok(answer) = AnswerHead::decode(&head) {
            prop_assert_eq!(answer.encode(), head);
        }
    }
}
