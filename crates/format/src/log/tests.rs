use std::fmt::Debug;

use proptest::prelude::*;

use super::*;
use crate::hash::{ObjectHash, PackHash};
use crate::id::{NodeId, OrgId, RepoId, TokenId};
use crate::name::{Namespace, NodeName, RefName, RegionName, RepoKind, RepoName};

/// The first entries that were ever written; they must be readable for ever.
const KEPT_REPO: &[u8] = include_bytes!("../../../../tests/fixtures/log-entry-repo-v1.bin");
const KEPT_CATALOGUE: &[u8] =
    include_bytes!("../../../../tests/fixtures/log-entry-catalogue-v1.bin");
const KEPT_MIRROR: &[u8] =
    include_bytes!("../../../../tests/fixtures/log-entry-catalogue-mirror-v1.bin");
const KEPT_ACCOUNTS: &[u8] = include_bytes!("../../../../tests/fixtures/log-entry-accounts-v1.bin");

/// The first of the second version.
const KEPT_QUOTAS: &[u8] = include_bytes!("../../../../tests/fixtures/log-entry-accounts-v2.bin");

/// The first of the third version.
const KEPT_NODES: &[u8] = include_bytes!("../../../../tests/fixtures/log-entry-accounts-v3.bin");

const KEPT_AUDIT: &[u8] = include_bytes!("../../../../tests/fixtures/log-entry-audit-v2.bin");

/// The first of the third version.
const KEPT_HOMES: &[u8] = include_bytes!("../../../../tests/fixtures/log-entry-catalogue-v3.bin");
const KEPT_MOVED: &[u8] = include_bytes!("../../../../tests/fixtures/log-entry-repo-v3.bin");

fn entry<C>(changes: Vec<C>, author: Option<UserId>) -> Entry<C> {
    Entry {
        operation: OperationId::from_bytes([1; 16]),
        previous: EntryHash::from_bytes([2; 32]),
        epoch: 3,
        term: 4,
        time_ms: 1_700_000_000_123,
        author,
        changes,
    }
}

fn user(byte: u8) -> UserId {
    UserId::from_bytes([byte; 16])
}

fn repo_name(text: &str) -> RepoName {
    text.parse().expect("a valid name")
}

fn namespace(text: &str) -> Namespace {
    text.parse().expect("a valid name")
}

/// One of each change, with every option once there and once not.
fn repo_entry() -> Entry<RepoChange> {
    let object = |byte| ObjectHash::from_bytes([byte; 20]);
    let changes = vec![
        RepoChange::PackAdded { pack: PackHash::from_bytes([5; 32]) },
        RepoChange::RefSet { name: RefName::main(), old: None, new: object(6) },
        RepoChange::RefSet { name: RefName::pull(7), old: Some(object(8)), new: object(9) },
        RepoChange::RefDeleted { name: RefName::tag("v1.0").expect("valid"), old: object(10) },
        RepoChange::PullRequestOpened {
            number: 11,
            title: "Größer".to_owned(),
            description: "Two\nlines".to_owned(),
            author: user(12),
        },
        RepoChange::PullRequestStatus { number: 13, status: PullRequestStatus::Draft },
        RepoChange::PullRequestStatus { number: 13, status: PullRequestStatus::Open },
        RepoChange::PullRequestStatus { number: 13, status: PullRequestStatus::Closed },
        RepoChange::PullRequestStatus { number: 13, status: PullRequestStatus::Merged },
        RepoChange::Comment {
            number: 14,
            id: OperationId::from_bytes([15; 16]),
            author: user(16),
            text: String::new(),
        },
    ];
    entry(changes, Some(user(17)))
}

fn catalogue_entry() -> Entry<CatalogueChange> {
    let id = RepoId::from_bytes([20; 16]);
    let user = user(21);
    let created = |kind, name, visibility, sdk: Option<&str>| CatalogueChange::RepoCreated {
        id,
        kind,
        name: repo_name(name),
        visibility,
        creator: user,
        sdk: sdk.map(str::to_owned),
    };
    let settings = |gating| CatalogueChange::RepoSettings {
        id,
        visibility: Some(Visibility::Public),
        gating: Some(gating),
        description: Some("a line".to_owned()),
        discussions_disabled: Some(true),
        disabled: Some(false),
    };
    let decided = |status, reason: Option<&str>| CatalogueChange::AccessDecided {
        id,
        user,
        status,
        reason: reason.map(str::to_owned),
    };
    let changes = vec![
        created(RepoKind::Model, "org/Model-1", Visibility::Public, None),
        created(RepoKind::Dataset, "org/d", Visibility::Private, None),
        created(RepoKind::Space, "u/s", Visibility::Private, Some("static")),
        CatalogueChange::RepoMoved { id, to: repo_name("org/other") },
        CatalogueChange::RepoDeleted { id },
        settings(Gating::None),
        settings(Gating::Automatic),
        settings(Gating::Manual),
        CatalogueChange::RepoSettings {
            id,
            visibility: None,
            gating: None,
            description: None,
            discussions_disabled: None,
            disabled: None,
        },
        CatalogueChange::Liked { id, user },
        CatalogueChange::Unliked { id, user },
        CatalogueChange::AccessRequested { id, user, fields: "{\"a\":1}".to_owned() },
        decided(AccessStatus::Pending, None),
        decided(AccessStatus::Accepted, None),
        decided(AccessStatus::Rejected, Some("no")),
    ];
    entry(changes, None)
}

fn token(role: TokenRole, expires_ms: Option<u64>) -> AccountChange {
    AccountChange::TokenCreated {
        id: TokenId::from_bytes([30; 16]),
        user: user(31),
        name: "laptop".to_owned(),
        hash: [32; 32],
        role,
        expires_ms,
    }
}

/// What was added to the catalogue later.
fn mirror_entry() -> Entry<CatalogueChange> {
    let (id, upstream) = (RepoId::from_bytes([16; 16]), "https://hub.example".to_owned());
    entry(vec![CatalogueChange::RepoMirrors { id, upstream }], None)
}

fn region(text: &str) -> RegionName {
    text.parse().expect("a valid name")
}

fn head(number: u64, byte: u8) -> Head {
    Head { number, hash: EntryHash::from_bytes([byte; 32]) }
}

fn rules() -> Replication {
    Replication {
        patterns: vec!["acme/**".to_owned(), "datasets/acme/*".to_owned()],
        to: region("eu-1"),
        residency: vec![region("eu-1"), region("us")],
        limit: Some(63),
        window: Some((64, 65)),
        is_paused: false,
    }
}

/// What was added to the catalogue for regions.
fn homes_entry() -> Entry<CatalogueChange> {
    let id = RepoId::from_bytes([50; 16]);
    let follows = |known, line| CatalogueChange::RepoFollows {
        id,
        home: region("eu-1"),
        address: "https://eu.example".to_owned(),
        term: 51,
        known,
        line,
    };
    let changes = vec![
        follows(Head::NOTHING, None),
        follows(head(52, 53), Some(RepoId::from_bytes([54; 16]))),
        CatalogueChange::RepoArrived { id, known: head(55, 56) },
        CatalogueChange::RepoHomed {
            id,
            term: 57,
            known: head(58, 59),
            line: RepoId::from_bytes([68; 16]),
        },
        CatalogueChange::ReplicationSet { name: region("models"), rules: rules() },
        CatalogueChange::ReplicationSet {
            name: region("all"),
            rules: Replication {
                patterns: Vec::new(),
                residency: Vec::new(),
                limit: None,
                window: None,
                is_paused: true,
                ..rules()
            },
        },
        CatalogueChange::ReplicationRemoved { name: region("models") },
        CatalogueChange::RegionCompared { region: region("eu-1"), repos: 66, findings: 67 },
    ];
    entry(changes, Some(user(60)))
}

fn moved_entry() -> Entry<RepoChange> {
    let (home, address) = (region("eu-1"), "https://eu.example".to_owned());
    entry(vec![RepoChange::HomeMoved { home, address, term: 61 }], Some(user(62)))
}

fn account_entry() -> Entry<AccountChange> {
    let (id, org) = (user(33), OrgId::from_bytes([34; 16]));
    let scope = |entity, role| TokenScope { entity, role };
    let repo = |kind| ScopeEntity::Repo { kind, name: repo_name("org/m") };
    let scopes = vec![
        scope(ScopeEntity::Namespace(namespace("org")), Role::Read),
        scope(repo(RepoKind::Model), Role::Write),
        scope(repo(RepoKind::Dataset), Role::Admin),
        scope(repo(RepoKind::Space), Role::Read),
    ];
    let created = |email: Option<&str>, admin| AccountChange::UserCreated {
        id,
        name: namespace("Anna"),
        fullname: "Anna Ø".to_owned(),
        email: email.map(str::to_owned),
        admin,
    };
    let member = |role| AccountChange::MemberSet { org, user: id, role };
    let changes = vec![
        created(Some("a@example.com"), true),
        created(None, false),
        AccountChange::UserChanged {
            id,
            fullname: Some("A".to_owned()),
            email: Some(String::new()),
            admin: Some(false),
            disabled: Some(true),
        },
        AccountChange::UserChanged { id, fullname: None, email: None, admin: None, disabled: None },
        AccountChange::OrgCreated {
            id: org,
            name: namespace("org"),
            fullname: "The Org".to_owned(),
            default_visibility: Visibility::Private,
        },
        AccountChange::OrgChanged { id: org, fullname: None, default_visibility: None },
        AccountChange::OrgChanged {
            id: org,
            fullname: Some("Org".to_owned()),
            default_visibility: Some(Visibility::Public),
        },
        member(Some(Role::Read)),
        member(Some(Role::Write)),
        member(Some(Role::Admin)),
        member(None),
        token(TokenRole::Read, None),
        token(TokenRole::Write, Some(1)),
        token(TokenRole::FineGrained { scopes }, Some(u64::MAX)),
        AccountChange::TokenRevoked { id: TokenId::from_bytes([35; 16]) },
    ];
    entry(changes, Some(user(36)))
}

fn quota_entry() -> Entry<AccountChange> {
    let set = |owner, bytes, repos| {
        let quota = Quota { bytes, repos };
        AccountChange::QuotaSet { owner, quota }
    };
    let (user, org) = (Owner::User(user(37)), Owner::Org(OrgId::from_bytes([38; 16])));
    let changes = vec![
        set(user, Some(1 << 40), Some(12)),
        set(org, None, Some(0)),
        set(org, Some(u64::MAX), None),
        set(user, None, None),
        AccountChange::TokenRevoked { id: TokenId::from_bytes([39; 16]) },
    ];
    entry(changes, Some(self::user(40)))
}

fn node_entry() -> Entry<AccountChange> {
    let id = NodeId::from_bytes([47; 16]);
    let invited = |name: &str, role| AccountChange::NodeInvited {
        id,
        name: NodeName::parse(name).expect("a valid name"),
        role,
        user: user(48),
        hash: [49; 32],
        expires_ms: 1_700_000_900_123,
    };
    let changes = vec![
        invited("gpu-1.rack-2", NodeRole::Node),
        invited("eu", NodeRole::Region),
        AccountChange::NodeJoined { id, key: [50; 32], token: TokenId::from_bytes([51; 16]) },
        token(TokenRole::Read, None),
        AccountChange::NodeRevoked { id },
    ];
    entry(changes, Some(user(52)))
}

fn audit_entry() -> Entry<AuditChange> {
    let token = TokenId::from_bytes([41; 16]);
    let failed = |token| {
        let (address, count, since_ms) = ([42; 16], 43, 44);
        AuditChange::LoginsFailed { address, token, count, since_ms }
    };
    let changes = vec![
        failed(None),
        failed(Some(token)),
        AuditChange::MoreLoginsFailed { count: u64::MAX },
        AuditChange::Acted { act: Act::CollectedGarbage, token },
        AuditChange::Acted { act: Act::ExportedMetadata, token },
        AuditChange::Heads { catalogue: head(0, 0), accounts: head(45, 46) },
    ];
    entry(changes, None)
}

fn check_kept<C: Change + Debug + PartialEq>(entry: &Entry<C>, kept: &[u8], hash: &str) {
    assert_eq!(entry.encode().expect("small"), kept);
    assert_eq!(&Entry::decode(kept).expect("kept"), entry);
    assert_eq!(EntryHash::of(kept).to_string(), hash);
    for length in 0..kept.len() {
        let cut = Entry::<C>::decode(&kept[..length]);
        assert!(matches!(cut, Err(Error::Truncated { .. })), "{length}");
    }
}

#[test]
fn kept_bytes_are_written_and_read_today() {
    check_kept(
        &repo_entry(),
        KEPT_REPO,
        "fde47eb9f705a88e42546cd2108364f013e3d1565faa5d567b43b0135c1ea105",
    );
    check_kept(
        &catalogue_entry(),
        KEPT_CATALOGUE,
        "35ede9e6b20139cb0311b95940c895173df932a9386930d34db47d0877e8f16b",
    );
    check_kept(
        &mirror_entry(),
        KEPT_MIRROR,
        "e2b46f10807e1f13cd432324ff8a8530b452e53465923a1a1b9fa4adc7f16b24",
    );
    check_kept(
        &account_entry(),
        KEPT_ACCOUNTS,
        "cf0b7d6ebdc9a688c9f47f37183dbb0ed3a50f269739dc68e35982485a018f5d",
    );
    check_kept(
        &quota_entry(),
        KEPT_QUOTAS,
        "96039bfa8416b3b3495e6e0b5e5eb2d9f0818ecedf5f43e1f8af925387ce42a8",
    );
    check_kept(
        &node_entry(),
        KEPT_NODES,
        "6583397909ab85adb031a60a8eae7a6e7d7103bfa91ead278a24455762287baf",
    );
}

#[test]
fn kept_bytes_of_the_audit_log_are_written_and_read_today() {
    check_kept(
        &audit_entry(),
        KEPT_AUDIT,
        "b311532697020d6292cb9283a0499fa32acbd3f8aa6ebca7c48411a7887c0d8c",
    );
    check_exact(&audit_entry(), KEPT_AUDIT);
}

#[test]
fn kept_bytes_of_homes_are_written_and_read_today() {
    check_kept(
        &homes_entry(),
        KEPT_HOMES,
        "ebb8063f354d5098afea077b58c6f7efef0421097a1b4dc12d3244e585601a71",
    );
    check_kept(
        &moved_entry(),
        KEPT_MOVED,
        "57683df9cc7492445e45f14551de2a9d9291458f37fa52932e60cf16240a8e19",
    );
    check_exact(&homes_entry(), KEPT_HOMES);
    check_exact(&moved_entry(), KEPT_MOVED);
}

/// Every byte of a kept entry matters: no other bytes are read as the same entry.
fn check_exact<C: Change + Debug + PartialEq>(entry: &Entry<C>, kept: &[u8]) {
    for bit in 0..kept.len() * 8 {
        let mut bytes = kept.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(other) = Entry::decode(&bytes) {
            assert_ne!(&other, entry, "bit {bit}");
            assert_eq!(other.encode().expect("small"), bytes, "bit {bit}");
        }
    }
}

#[test]
fn an_entry_has_one_encoding() {
    check_exact(&repo_entry(), KEPT_REPO);
    check_exact(&catalogue_entry(), KEPT_CATALOGUE);
    check_exact(&mirror_entry(), KEPT_MIRROR);
    check_exact(&account_entry(), KEPT_ACCOUNTS);
    check_exact(&quota_entry(), KEPT_QUOTAS);
    check_exact(&node_entry(), KEPT_NODES);
}

#[test]
fn an_entry_of_another_log_is_refused() {
    assert!(Entry::<CatalogueChange>::decode(KEPT_REPO).is_err());
    assert!(Entry::<AccountChange>::decode(KEPT_CATALOGUE).is_err());
    assert!(Entry::<RepoChange>::decode(KEPT_ACCOUNTS).is_err());
    assert!(Entry::<AuditChange>::decode(KEPT_QUOTAS).is_err());
}

#[test]
fn a_later_version_is_refused_as_such() {
    let mut bytes = KEPT_REPO.to_vec();
    bytes[8] = 4;
    let read = Entry::<RepoChange>::decode(&bytes);
    assert!(matches!(read, Err(Error::UnknownVersion { version: 4, .. })));
}

#[test]
fn an_entry_says_the_version_that_it_needs_and_no_other() {
    let mut older = KEPT_QUOTAS.to_vec();
    older[8] = 1;
    assert!(matches!(Entry::<AccountChange>::decode(&older), Err(Error::Malformed { .. })));
    for later in [2, 3] {
        let mut bytes = KEPT_ACCOUNTS.to_vec();
        bytes[8] = later;
        assert!(matches!(Entry::<AccountChange>::decode(&bytes), Err(Error::Malformed { .. })));
    }
}

#[test]
fn trailing_bytes_are_refused_within_the_length_and_behind_it() {
    let mut bytes = KEPT_REPO.to_vec();
    bytes.push(0);
    assert!(Entry::<RepoChange>::decode(&bytes).is_err());
    let length = u32::from_le_bytes(bytes[10..14].try_into().expect("four"));
    bytes[10..14].copy_from_slice(&(length + 1).to_le_bytes());
    assert!(Entry::<RepoChange>::decode(&bytes).is_err());
}

#[test]
fn unknown_changes_and_invalid_names_are_refused() {
    let empty = entry(Vec::<RepoChange>::new(), None).encode().expect("small");
    let with = |change: &[u8]| {
        let mut bytes = empty.clone();
        let count = bytes.len() - 4;
        bytes[count] = 1;
        bytes.extend_from_slice(change);
        let length = u32::try_from(bytes.len() - 14).expect("small");
        bytes[10..14].copy_from_slice(&length.to_le_bytes());
        Entry::<RepoChange>::decode(&bytes)
    };
    let pack = [&[2], [7; 32].as_slice()].concat();
    assert_eq!(with(&pack).expect("known").changes.len(), 1);
    assert!(with(&[7]).is_err());
    let deleted = |name: &str| {
        let mut encoder = Encoder::new();
        encoder.u8(1);
        encoder.str(name);
        encoder.array(&[0; 20]);
        encoder.finish()
    };
    assert!(with(&deleted("refs/heads/main")).is_ok());
    assert!(with(&deleted("refs/heads/../main")).is_err());
}

#[test]
fn too_many_changes_are_neither_written_nor_read() {
    let change = RepoChange::PullRequestStatus { number: 1, status: PullRequestStatus::Open };
    let most = entry(vec![change.clone(); MAX_ENTRY_CHANGES], None);
    let mut bytes = most.encode().expect("the most that may be");
    assert_eq!(Entry::decode(&bytes).expect("own"), most);
    let one_more = entry(vec![change; MAX_ENTRY_CHANGES + 1], None);
    assert!(matches!(one_more.encode(), Err(Error::TooLarge { .. })));
    let count = bytes.len() - 6 * MAX_ENTRY_CHANGES - 4;
    bytes[count..count + 4].copy_from_slice(&10_001_u32.to_le_bytes());
    let read = Entry::<RepoChange>::decode(&bytes);
    assert!(matches!(read, Err(Error::TooLarge { size: 10_001, .. })));
}

#[test]
fn an_entry_over_its_limit_is_neither_written_nor_read() {
    let comment = |length| {
        let (id, author) = (OperationId::from_bytes([0; 16]), user(0));
        let text = "x".repeat(length);
        entry(vec![RepoChange::Comment { number: 1, id, author, text }], None)
    };
    let around = comment(0).encode().expect("small").len();
    let bytes = comment(MAX_ENTRY_BYTES - around).encode().expect("the longest");
    assert_eq!(bytes.len(), MAX_ENTRY_BYTES);
    assert!(Entry::<RepoChange>::decode(&bytes).is_ok());
    assert!(matches!(comment(MAX_ENTRY_BYTES).encode(), Err(Error::TooLarge { .. })));
    let mut bytes = bytes;
    bytes.push(0);
    let length = u32::try_from(bytes.len() - 14).expect("small");
    bytes[10..14].copy_from_slice(&length.to_le_bytes());
    assert!(matches!(Entry::<RepoChange>::decode(&bytes), Err(Error::TooLarge { .. })));
}

fn a_user() -> impl Strategy<Value = UserId> {
    any::<[u8; 16]>().prop_map(UserId::from_bytes)
}

fn an_object() -> impl Strategy<Value = ObjectHash> {
    any::<[u8; 20]>().prop_map(ObjectHash::from_bytes)
}

fn a_ref() -> impl Strategy<Value = RefName> {
    "refs/(heads|tags)/[a-zü]{1,9}(/[a-z]{1,9})?".prop_map(|text| text.parse().expect("valid"))
}

fn a_repo_change() -> impl Strategy<Value = RepoChange> {
    prop_oneof![
        (a_ref(), proptest::option::of(an_object()), an_object())
            .prop_map(|(name, old, new)| RepoChange::RefSet { name, old, new }),
        (a_ref(), an_object()).prop_map(|(name, old)| RepoChange::RefDeleted { name, old }),
        any::<[u8; 32]>()
            .prop_map(|pack| RepoChange::PackAdded { pack: PackHash::from_bytes(pack) }),
        (any::<u32>(), any::<String>(), any::<String>(), a_user()).prop_map(
            |(number, title, description, author)| RepoChange::PullRequestOpened {
                number,
                title,
                description,
                author
            }
        ),
        (any::<u32>(), any::<[u8; 16]>(), a_user(), any::<String>()).prop_map(
            |(number, id, author, text)| RepoChange::Comment {
                number,
                id: OperationId::from_bytes(id),
                author,
                text
            }
        ),
        ("[a-z0-9.-]{1,63}", any::<String>(), any::<u64>()).prop_map(|(home, address, term)| {
            RepoChange::HomeMoved { home: region(&home), address, term }
        }),
    ]
}

fn a_head() -> impl Strategy<Value = Head> {
    any::<(u64, u8)>().prop_map(|(number, byte)| head(number, byte))
}

fn a_catalogue_change() -> impl Strategy<Value = CatalogueChange> {
    let name = "[a-z]{1,9}/[A-Z0-9_]{1,9}".prop_map(|text| repo_name(&text));
    let id = any::<[u8; 16]>().prop_map(RepoId::from_bytes);
    let visibility = prop_oneof![Just(Visibility::Public), Just(Visibility::Private)];
    prop_oneof![
        (id, prop::sample::select(RepoKind::ALL.to_vec()), name, a_user(), any::<Option<String>>())
            .prop_map(|(id, kind, name, creator, sdk)| {
                let visibility = Visibility::Private;
                CatalogueChange::RepoCreated { id, kind, name, visibility, creator, sdk }
            }),
        (any::<[u8; 16]>(), proptest::option::of(visibility), any::<Option<String>>()).prop_map(
            |(id, visibility, description)| CatalogueChange::RepoSettings {
                id: RepoId::from_bytes(id),
                visibility,
                gating: None,
                description,
                discussions_disabled: None,
                disabled: Some(true),
            }
        ),
        (any::<([u8; 16], String, u64)>(), a_head(), any::<Option<[u8; 16]>>()).prop_map(
            |((id, address, term), known, line)| CatalogueChange::RepoFollows {
                id: RepoId::from_bytes(id),
                home: region("r"),
                address,
                term,
                known,
                line: line.map(RepoId::from_bytes),
            }
        ),
        (any::<([u8; 16], u64)>(), a_head()).prop_map(|((id, term), known)| {
            let line = RepoId::from_bytes(id.map(|byte| !byte));
            CatalogueChange::RepoHomed { id: RepoId::from_bytes(id), term, known, line }
        }),
        (any::<[u8; 16]>(), a_head()).prop_map(|(id, known)| CatalogueChange::RepoArrived {
            id: RepoId::from_bytes(id),
            known
        }),
        any::<(Vec<String>, Option<u64>, Option<(u32, u32)>, bool)>().prop_map(
            |(patterns, limit, window, is_paused)| CatalogueChange::ReplicationSet {
                name: region("r"),
                rules: Replication { patterns, limit, window, is_paused, ..rules() },
            }
        ),
        any::<(u64, u64)>().prop_map(|(repos, findings)| CatalogueChange::RegionCompared {
            region: region("r"),
            repos,
            findings
        }),
    ]
}

fn a_scope() -> impl Strategy<Value = TokenScope> {
    let role = prop::sample::select(vec![Role::Read, Role::Write, Role::Admin]);
    let entity = prop_oneof![
        "[A-Za-z0-9_]{1,20}".prop_map(|text| ScopeEntity::Namespace(namespace(&text))),
        (prop::sample::select(RepoKind::ALL.to_vec()), "[a-z]{1,9}/[A-Z0-9_]{1,9}")
            .prop_map(|(kind, text)| ScopeEntity::Repo { kind, name: repo_name(&text) }),
    ];
    (entity, role).prop_map(|(entity, role)| TokenScope { entity, role })
}

fn an_account_change() -> impl Strategy<Value = AccountChange> {
    let scopes = proptest::collection::vec(a_scope(), 0..5);
    prop_oneof![
        (scopes, any::<Option<u64>>())
            .prop_map(|(scopes, end)| token(TokenRole::FineGrained { scopes }, end)),
        (a_user(), any::<Option<String>>(), any::<Option<String>>(), any::<Option<bool>>())
            .prop_map(|(id, fullname, email, admin)| AccountChange::UserChanged {
                id,
                fullname,
                email,
                admin,
                disabled: None,
            }),
        (a_user(), any::<Option<u64>>(), any::<Option<u64>>()).prop_map(|(id, bytes, repos)| {
            AccountChange::QuotaSet { owner: Owner::User(id), quota: Quota { bytes, repos } }
        }),
        ("[a-z0-9.-]{1,63}", any::<([u8; 16], [u8; 32], u64)>(), a_user()).prop_map(
            |(name, (id, hash, expires_ms), user)| AccountChange::NodeInvited {
                id: NodeId::from_bytes(id),
                name: NodeName::parse(&name).expect("valid"),
                role: NodeRole::Region,
                user,
                hash,
                expires_ms,
            }
        ),
        any::<([u8; 16], [u8; 32], [u8; 16])>().prop_map(|(id, key, token)| {
            let (id, token) = (NodeId::from_bytes(id), TokenId::from_bytes(token));
            AccountChange::NodeJoined { id, key, token }
        }),
        (a_user(), any::<String>(), any::<Option<String>>()).prop_map(|(id, fullname, email)| {
            AccountChange::UserCreated { id, name: namespace("x"), fullname, email, admin: false }
        }),
    ]
}

fn an_audit_change() -> impl Strategy<Value = AuditChange> {
    let token = || any::<[u8; 16]>().prop_map(TokenId::from_bytes);
    let failed = (any::<[u8; 16]>(), proptest::option::of(token()), any::<(u32, u64)>());
    prop_oneof![
        failed.prop_map(|(address, token, (count, since_ms))| {
            AuditChange::LoginsFailed { address, token, count, since_ms }
        }),
        any::<u64>().prop_map(|count| AuditChange::MoreLoginsFailed { count }),
        token().prop_map(|token| AuditChange::Acted { act: Act::CollectedGarbage, token }),
    ]
}

fn an_entry<C: Debug>(change: impl Strategy<Value = C>) -> impl Strategy<Value = Entry<C>> {
    let numbers = any::<([u8; 16], [u8; 32], u64, u64, u64)>();
    let changes = proptest::collection::vec(change, 0..8);
    (numbers, proptest::option::of(a_user()), changes).prop_map(|(numbers, author, changes)| {
        Entry {
            operation: OperationId::from_bytes(numbers.0),
            previous: EntryHash::from_bytes(numbers.1),
            epoch: numbers.2,
            term: numbers.3,
            time_ms: numbers.4,
            author,
            changes,
        }
    })
}

/// Noise where fields are, behind a front that fits.
fn framed(noise: &[u8], log: u8) -> Vec<u8> {
    let write = |encoder: &mut Encoder| {
        encoder.u8(log);
        encoder.array(noise);
    };
    FORMAT.encode(write).expect("small")
}

proptest! {
    #[test]
    fn round_trip_of_repo_entries(entry in an_entry(a_repo_change())) {
        prop_assert_eq!(Entry::decode(&entry.encode().expect("small")).expect("own"), entry);
    }

    #[test]
    fn round_trip_of_catalogue_entries(entry in an_entry(a_catalogue_change())) {
        prop_assert_eq!(Entry::decode(&entry.encode().expect("small")).expect("own"), entry);
    }

    #[test]
    fn round_trip_of_account_entries(entry in an_entry(an_account_change())) {
        prop_assert_eq!(Entry::decode(&entry.encode().expect("small")).expect("own"), entry);
    }

    #[test]
    fn round_trip_of_audit_entries(entry in an_entry(an_audit_change())) {
        prop_assert_eq!(Entry::decode(&entry.encode().expect("small")).expect("own"), entry);
    }

    #[test]
    fn noise_never_panics(noise: Vec<u8>, start in 0..400_usize) {
        let _ = Entry::<RepoChange>::decode(&noise);
        let _ = Entry::<RepoChange>::decode(&framed(&noise, 0));
        let _ = Entry::<CatalogueChange>::decode(&framed(&noise, 1));
        let _ = Entry::<AccountChange>::decode(&framed(&noise, 2));
        let _ = Entry::<AuditChange>::decode(&framed(&noise, 3));
        // And noise behind a good beginning.
        let start = start.min(KEPT_ACCOUNTS.len() - 15);
        let bytes = [&KEPT_ACCOUNTS[15..15 + start], &noise].concat();
        let _ = Entry::<AccountChange>::decode(&framed(&bytes, 2));
    }
}
