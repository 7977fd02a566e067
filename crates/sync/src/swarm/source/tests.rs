use std::time::Duration;

use ballast_format::xorb::{ChunkDecoder, XorbFooter};
use futures_util::TryStreamExt as _;

use super::*;
use crate::carrier::Urgency;
use crate::swarm::rig::{Rig, check, node};
use crate::swarm::tracker::Members as _;

const FOR_EVER: u64 = u64::MAX;

fn asked(spans: Vec<Span>) -> Request {
    let (expected, patience) = (Vec::new(), Duration::ZERO);
    Request { spans, expected, patience, urgency: Urgency::Swarm }
}

/// A source, and the xorbs of the rig's file.
async fn source(rig: &Rig) -> (HubSource, Vec<(XorbHash, Arc<XorbFooter>)>) {
    let source = HubSource::new(Arc::clone(&rig.hub), check());
    let mut xorbs = Vec::new();
    for term in &rig.manifest().await.terms {
        let footer = rig.hub.carried_footer(&term.xorb).await.expect("it is here");
        xorbs.push((term.xorb, footer));
    }
    (source, xorbs)
}

fn shown(rig: &Rig, xorbs: &[XorbHash], until_ms: u64) -> bytes::Bytes {
    rig.members.permit(&node("reader"), xorbs, until_ms)
}

#[tokio::test]
async fn who_showed_a_permit_gets_all_chunks_in_runs_of_whole_ones() {
    let rig = Rig::start(3 << 20).await;
    let (source, xorbs) = source(&rig).await;
    let names: Vec<_> = xorbs.iter().map(|(xorb, _)| *xorb).collect();
    source.admit(&node("reader"), &shown(&rig, &names, FOR_EVER)).await.expect("it is good");
    let spans = xorbs.iter().map(|(xorb, footer)| {
        let chunks = 0..footer.chunk_count();
        Span { xorb: *xorb, chunks }
    });
    let runs = source.open(&node("reader"), asked(spans.collect())).await.expect("it opens");
    let runs: Vec<Run> = runs.try_collect().await.expect("it reads");
    assert!(runs.len() > 2, "3 MiB do not fit in two runs");
    let (mut content, mut next) = (Vec::new(), 0);
    for run in runs {
        let Content::Here { encoding: Encoding::Stored, lengths, bytes } = run.content else {
            panic!("it is here, as it is stored");
        };
        assert!(bytes.len() <= LONGEST_RUN && lengths.len() == run.chunks.len());
        assert_eq!(run.chunks.start, next, "they come in order");
        let footer = &xorbs[run.span as usize].1;
        next = if run.chunks.end == footer.chunk_count() { 0 } else { run.chunks.end };
        let mut decoder = ChunkDecoder::new();
        let sink = |chunk: &[u8]| {
            content.extend_from_slice(chunk);
            Ok(())
        };
        decoder.decode_chunks(&bytes, footer, run.chunks, true, sink).expect("they are sound");
    }
    assert!(content == rig.content, "it is the file");
    source.sent(&node("reader"), 123);
    let figures = rig.hub.figures();
    let sent = figures.iter().find(|figure| figure.name == "swarm_hub_sent_bytes_total");
    assert_eq!(sent.expect("it is counted").value, 123, "what was read may not have gone");
}

#[tokio::test]
async fn what_was_not_shown_or_is_not_here_is_absent() {
    let rig = Rig::start(1 << 20).await;
    let (source, xorbs) = source(&rig).await;
    let (xorb, footer) = &xorbs[0];
    let whole = || vec![Span { xorb: *xorb, chunks: 0..footer.chunk_count() }];
    let absent = |request| async {
        let runs = source.open(&node("reader"), request).await.expect("it opens");
        let runs: Vec<Run> = runs.try_collect().await.expect("it reads");
        runs.iter().all(|run| matches!(run.content, Content::Absent))
    };
    assert!(absent(asked(whole())).await, "no permit was shown");

    // One of another node, and one that is over.
    let others = rig.members.permit(&node("other"), &[*xorb], FOR_EVER);
    let refused = source.admit(&node("reader"), &others).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    let refused = source.admit(&node("reader"), &shown(&rig, &[*xorb], 1)).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    assert!(absent(asked(whole())).await);

    let nowhere = XorbHash::from_bytes([9; 32]);
    let permit = shown(&rig, &[*xorb, nowhere], FOR_EVER);
    source.admit(&node("reader"), &permit).await.expect("it is good");
    let past = Span { xorb: *xorb, chunks: 0..footer.chunk_count() + 1 };
    let unknown = Span { xorb: nowhere, chunks: 0..1 };
    assert!(absent(asked(vec![past, unknown])).await);
    assert!(!absent(asked(whole())).await);
    let held = source.holdings(&node("reader"), &[*xorb, nowhere]).await.expect("it answers");
    assert_eq!(held, [vec![0..footer.chunk_count()], vec![]]);
    let held = source.holdings(&node("other"), &[*xorb]).await.expect("it answers");
    assert_eq!(held, [vec![]]);
}
