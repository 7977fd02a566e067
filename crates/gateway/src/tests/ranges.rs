//! Parts of files: for whom, and of which content.

use super::rig::Rig;
use super::upload::pack;

#[tokio::test]
async fn a_part_is_of_the_content_that_the_client_has_begun() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    let packed = pack(&[7; 3000]);
    rig.publish(&rig.admin, &repo, &packed).await;
    let path = format!("/{repo}/resolve/main/weights.bin");
    let etag = format!("\"{}\"", packed.sha256);
    let part = || rig.ask("GET", &path).range("bytes=1000-");
    part().send().await.expect(206);
    let same = part().header("if-range", &etag).send().await.expect(206);
    assert_eq!(same.header("content-range"), Some("bytes 1000-2999/3000"));
    for other in ["\"other\"", &format!("W/{etag}"), "Wed, 21 Oct 2015 07:28:00 GMT"] {
        let whole = part().header("if-range", other).send().await.expect(200);
        assert_eq!((whole.body.len(), whole.header("content-range")), (3000, None), "{other}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_look_at_the_headers_has_no_range() {
    let rig = Rig::start().await;
    let repo = rig.repo("m", false).await;
    rig.publish(&rig.admin, &repo, &pack(&[7; 3000])).await;
    let path = format!("/{repo}/resolve/main/weights.bin");
    let reply = rig.ask("HEAD", &path).range("bytes=0-0").send().await.expect(200);
    assert_eq!(reply.header("content-length"), Some("3000"));
    assert_eq!(reply.header("content-range"), None);
    rig.stop().await;
}
