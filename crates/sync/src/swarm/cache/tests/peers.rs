//! What peers get of a cache.

use std::time::Duration;

use crate::carrier::{Content, Encoding, Request, Run, Source as _, Span, Urgency};
use crate::cluster::PeerName;

use super::rig::Rig;
use super::*;
use crate::swarm::sample::Sample;

fn peer() -> PeerName {
    PeerName::parse("rack-1").expect("a name")
}

fn request(spans: Vec<Span>) -> Request {
    let patience = Duration::from_secs(10);
    Request { spans, expected: Vec::new(), patience, urgency: Urgency::Swarm }
}

fn span(xorb: XorbHash, chunks: Range<u32>) -> Span {
    Span { xorb, chunks }
}

async fn source(rig: &Rig, sample: &Sample) -> CacheSource {
    let source = CacheSource::new(Arc::clone(&rig.cache), Arc::default());
    let permit: Vec<u8> = sample.xorbs().iter().flat_map(|xorb| *xorb.as_bytes()).collect();
    source.admit(&peer(), &permit).await.expect("it is valid");
    source
}

/// What was handed out: span, chunks, and the bytes or nothing.
fn told(run: Run) -> (u32, Range<u32>, Option<Vec<u8>>) {
    let bytes = match run.content {
        Content::Absent => None,
        Content::Here { encoding, lengths, bytes } => {
            assert_eq!(encoding, Encoding::Plain);
            let length: u32 = lengths.iter().sum();
            assert_eq!(length as usize, bytes.len());
            assert_eq!(lengths.len(), run.chunks.len());
            Some(bytes.to_vec())
        }
    };
    (run.span, run.chunks, bytes)
}

#[tokio::test]
async fn a_peer_gets_what_it_was_permitted_and_nothing_else() -> Outcome {
    let rig = Rig::new(1 << 20).await?;
    let (one, other) = (Sample::new(1, 6, 4), Sample::new(2, 6, 4));
    rig.fill(&one).await?;
    rig.fill(&other).await?;
    let source = source(&rig, &one).await;
    let spans = vec![
        span(one.xorbs()[1], 0..2),
        span(other.xorbs()[0], 1..3),
        span(one.xorbs()[0], 2..9),
        span(XorbHash::from_bytes([1; 32]), 0..1),
    ];
    let runs = source.open(&peer(), request(spans.clone())).await.expect("it opens");
    let runs: Vec<Run> = runs.try_collect().await.expect("it reads");
    let runs: Vec<_> = runs.into_iter().map(told).collect();
    let here = |chunks: Range<u32>| Some(one.bytes(chunks).to_vec());
    assert_eq!(
        runs,
        [
            (0, 0..2, here(4..6)),
            (1, 1..3, None),
            (2, 2..4, here(2..4)),
            (2, 4..9, None),
            (3, 0..1, None),
        ]
    );
    let stranger = PeerName::parse("stranger").expect("a name");
    let runs = source.open(&stranger, request(spans)).await.expect("it opens");
    let runs: Vec<Run> = runs.try_collect().await.expect("it reads");
    assert!(runs.iter().all(|run| matches!(run.content, Content::Absent)));
    let xorbs = [one.xorbs()[0], other.xorbs()[0], one.xorbs()[1]];
    let held = source.holdings(&peer(), &xorbs).await.expect("it answers");
    assert_eq!(held, [vec![0..4], vec![], vec![0..2]]);
    let held = source.holdings(&stranger, &xorbs).await.expect("it answers");
    assert!(held.iter().all(Vec::is_empty));
    Ok(())
}

#[tokio::test]
async fn what_is_coming_is_waited_for_and_handed_on_as_it_comes() -> Outcome {
    let rig = Rig::new(1 << 20).await?;
    let sample = Sample::new(1, 8, 8);
    let filling = rig.begin(&sample).await?;
    let source = source(&rig, &sample).await;
    let asked = request(vec![span(sample.xorbs()[0], 0..8)]);
    let mut runs = source.open(&peer(), asked).await.expect("it opens");
    filling.write(0..2, sample.bytes(0..2)).await?;
    let first = runs.next().await.expect("more").expect("it reads");
    assert_eq!(told(first), (0, 0..2, Some(sample.bytes(0..2).to_vec())));
    for start in [2, 4] {
        let mut next = Box::pin(runs.next());
        assert!(next.as_mut().now_or_never().is_none());
        // Each that comes makes it patient again.
        rig.env.advance(Duration::from_secs(9));
        assert!(next.as_mut().now_or_never().is_none());
        filling.write(start..start + 2, sample.bytes(start..start + 2)).await?;
        let run = next.await.expect("more").expect("it reads");
        assert_eq!(told(run), (0, start..start + 2, Some(sample.bytes(start..start + 2).to_vec())));
    }
    filling.write(7..8, sample.bytes(7..8)).await?;
    let mut next = Box::pin(runs.next());
    assert!(next.as_mut().now_or_never().is_none());
    rig.env.advance(Duration::from_secs(10));
    assert_eq!(told(next.await.expect("more").expect("it reads")), (0, 6..7, None));
    let last = runs.next().await.expect("more").expect("it reads");
    assert_eq!(told(last), (0, 7..8, Some(sample.bytes(7..8).to_vec())));
    assert!(runs.next().await.is_none());
    assert_eq!(
        source.holdings(&peer(), &sample.xorbs()).await.expect("it answers"),
        [vec![0..6, 7..8]]
    );
    Ok(())
}

#[tokio::test]
async fn a_peer_that_asked_for_much_waits_while_the_file_gets_on_elsewhere() -> Outcome {
    let rig = Rig::new(1 << 20).await?;
    let sample = Sample::new(1, 8, 8);
    let filling = rig.begin(&sample).await?;
    let source = source(&rig, &sample).await;
    let asked = request(vec![span(sample.xorbs()[0], 7..8)]);
    let mut runs = source.open(&peer(), asked).await.expect("it opens");
    let mut next = Box::pin(runs.next());
    for chunk in 0..7 {
        assert!(next.as_mut().now_or_never().is_none());
        rig.env.advance(Duration::from_secs(9));
        filling.write(chunk..chunk + 1, sample.bytes(chunk..chunk + 1)).await?;
    }
    assert!(next.as_mut().now_or_never().is_none());
    rig.env.advance(Duration::from_secs(9));
    filling.write(7..8, sample.bytes(7..8)).await?;
    let run = next.await.expect("more").expect("it reads");
    assert_eq!(told(run), (0, 7..8, Some(sample.bytes(7..8).to_vec())));
    Ok(())
}

#[tokio::test]
async fn what_nobody_fetches_is_absent_at_once() -> Outcome {
    let rig = Rig::new(1 << 20).await?;
    let sample = Sample::new(1, 8, 8);
    let filling = rig.begin(&sample).await?;
    let source = source(&rig, &sample).await;
    let asked = request(vec![span(sample.xorbs()[0], 0..8)]);
    let mut runs = source.open(&peer(), asked).await.expect("it opens");
    let mut next = Box::pin(runs.next());
    assert!(next.as_mut().now_or_never().is_none());
    filling.rest(None).await?;
    assert_eq!(told(next.await.expect("more").expect("it reads")), (0, 0..8, None));
    assert!(runs.next().await.is_none());
    Ok(())
}

#[tokio::test]
async fn a_damaged_chunk_is_absent_for_peers() -> Outcome {
    let mut rig = Rig::new(1 << 20).await?;
    let sample = Sample::new(1, 8, 8);
    rig.fill(&sample).await?;
    rig.damage(&sample, 3000);
    rig.reopen().await?;
    let source = source(&rig, &sample).await;
    let asked = request(vec![span(sample.xorbs()[0], 2..5)]);
    let runs = source.open(&peer(), asked).await.expect("it opens");
    let runs: Vec<Run> = runs.try_collect().await.expect("it reads");
    let runs: Vec<_> = runs.into_iter().map(told).collect();
    let here = |chunks: Range<u32>| Some(sample.bytes(chunks).to_vec());
    assert_eq!(runs, [(0, 2..3, here(2..3)), (0, 3..4, None), (0, 4..5, here(4..5))]);
    Ok(())
}
