//! Every row comes back as it went in; noise is an error, never a panic.

use proptest::prelude::*;

use super::*;

fn any_copy() -> impl Strategy<Value = CopyName> {
    (prop::sample::select(CopyKind::ALL.to_vec()), any::<[u8; 32]>(), any::<u64>(), any::<u64>())
        .prop_map(|(kind, hash, epoch, nonce)| CopyName { kind, hash, epoch, nonce })
}

proptest! {
    #[test]
    fn rows_round_trip(
        a: [u8; 32], b: [u8; 32], shard in any_copy(), size: u64, time_ms: u64, length: u32
    ) {
        let (file, sha256) = (FileHash::from_bytes(a), Sha256::from_bytes(b));
        let manifest = ManifestId { file, shard: ShardHash::from_bytes(b) };
        let row = FileRow { manifest, size };
        prop_assert_eq!(FileRow::decode(&row.encode()).expect("own row"), row);
        let row = ManifestRow { shard, offset: time_ms, length, size, sha256 };
        prop_assert_eq!(ManifestRow::decode(&row.encode()).expect("own row"), row);
        for kind in [ObjectKind::Blob, ObjectKind::Tree, ObjectKind::Commit] {
            for pointer in [None, Some(Pointer { sha256, size: time_ms })] {
                let row = ObjectRow { pack: shard, offset: size, length: time_ms, kind, pointer };
                prop_assert_eq!(ObjectRow::decode(&row.encode()).expect("own row"), row);
            }
        }
        let row = UploadRow { manifest, size, time_ms };
        prop_assert_eq!(UploadRow::decode(&row.encode()).expect("own row"), row);
        let xorb = XorbHash::from_bytes(b);
        let row = ChunkRow { manifest, xorb, index: length, until_ms: time_ms };
        prop_assert_eq!(ChunkRow::decode(&row.encode()).expect("own row"), row);
        prop_assert_eq!(read_number(&number_row(size)).expect("own row"), size);
        prop_assert_eq!(read_sha256(sha256.as_bytes()).expect("own row"), sha256);
    }

    #[test]
    fn runs_round_trip(runs in prop::collection::vec((0..8192_u16, 1..100_u16), 0..80)) {
        let runs = runs.into_iter().map(|(start, length)| start..start + length).collect();
        let row = RunsRow { runs };
        prop_assert_eq!(RunsRow::decode(&row.encode()).expect("own row"), row);
    }

    #[test]
    fn keys_give_back_what_they_are_made_of(
        id: [u8; 16], hash: [u8; 32], copy in any_copy(), number: u64, day: u32
    ) {
        let repo = RepoId::from_bytes(id);
        let log = LogId::Repo(repo);
        prop_assert_eq!(log_number(&log_key(&log, number)).expect("own key"), number);
        prop_assert!(log_key(&log, number).starts_with(&log_prefix(&log)));
        let file = FileHash::from_bytes(hash);
        prop_assert_eq!(repo_of(&file_repo_key(&file, &repo)).expect("own key"), repo);
        let sha256 = Sha256::from_bytes(hash);
        prop_assert_eq!(repo_of(&sha256_repo_key(&sha256, &repo)).expect("own key"), repo);
        prop_assert_ne!(file_repo_prefix(&file), sha256_repo_prefix(&sha256));
        for scope in [Scope::Repo(repo), Scope::User(UserId::from_bytes(id))] {
            let key = xorb_scope_key(&XorbHash::from_bytes(hash), &scope);
            prop_assert_eq!(scope_of(&key).expect("own key"), scope);
            let key = chunk_key(&ChunkHash::from_bytes(hash), &scope);
            prop_assert_eq!(scope_of(&key).expect("own key"), scope);
        }
        let key = xorb_file_key(&XorbHash::from_bytes(hash), &repo, &file);
        prop_assert_eq!(scope_of(&key).expect("own key"), Scope::Repo(repo));
        prop_assert_eq!(copy_of(&copy_key(&copy)).expect("own key"), copy);
        prop_assert!(copy_key(&copy).starts_with(&copies_prefix(copy.kind, &copy.hash)));
        prop_assert_eq!(tally_day(&tally_key(&repo, day)).expect("own key"), day);
    }

    #[test]
    fn entries_sort_by_number(id: [u8; 16], a: u64, b: u64) {
        let log = LogId::Repo(RepoId::from_bytes(id));
        prop_assert_eq!(log_key(&log, a).cmp(&log_key(&log, b)), a.cmp(&b));
    }

    #[test]
    fn noise_is_an_error_or_a_row_and_never_a_panic(noise: Vec<u8>) {
        if let Ok(row) = FileRow::decode(&noise) {
            prop_assert_eq!(row.encode(), noise.clone());
        }
        if let Ok(row) = ObjectRow::decode(&noise) {
            prop_assert_eq!(row.encode(), noise.clone());
        }
        if let Ok(row) = ManifestRow::decode(&noise) {
            prop_assert_eq!(row.encode(), noise.clone());
        }
        if let Ok(row) = UploadRow::decode(&noise) {
            prop_assert_eq!(row.encode(), noise.clone());
        }
        if let Ok(row) = ChunkRow::decode(&noise) {
            prop_assert_eq!(row.encode(), noise.clone());
        }
        if let Ok(row) = RunsRow::decode(&noise) {
            prop_assert_eq!(row.encode(), noise.clone());
        }
        drop((log_number(&noise), repo_of(&noise), scope_of(&noise), copy_of(&noise)));
        drop((tally_day(&noise), read_number(&noise), Scope::from_bytes(&noise)));
        drop(read_sha256(&noise));
    }
}
