use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn environment(pairs: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let owned: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    owned.into_iter()
}

fn load(file: &str, variables: &[(&str, &str)], args: &ConfigArgs) -> Result<Config> {
    Config::layer(parse(file)?, environment(variables), args)
}

#[test]
fn the_example_shows_every_key_with_its_default() {
    let example = include_str!("../../../../deploy/config.example.toml");
    assert_eq!(load(example, &[], &ConfigArgs::default()).unwrap(), Config::default());
    let keys = |value: &Value| -> Vec<String> {
        let mut found = Vec::new();
        for (name, value) in value.as_table().unwrap() {
            match value.as_table() {
                Some(section) => found.extend(section.keys().map(|key| format!("{name}.{key}"))),
                None => found.push(name.clone()),
            }
        }
        found.sort();
        found
    };
    let shown: Table = example.parse().unwrap();
    assert_eq!(keys(&Value::Table(shown)), keys(&Value::try_from(Config::default()).unwrap()));
}

#[test]
fn flags_win_over_the_environment_which_wins_over_the_file() {
    let file = "data = \"/file\"\nlisten = \"127.0.0.1:1\"\n[limits]\nuploads = 3\n";
    let variables = [("BALLAST_DATA", "/environment"), ("BALLAST_LIMITS_UPLOADS", "5")];
    let args = ConfigArgs { data: Some("/flag".into()), ..ConfigArgs::default() };
    let config = load(file, &variables, &args).unwrap();
    assert_eq!(config.data, PathBuf::from("/flag"));
    assert_eq!(config.listen.port(), 1);
    assert_eq!(config.limits.uploads, 5);
}

#[test]
fn sizes_are_written_as_people_write_them() {
    let config = load("[limits]\ncache = \"1GiB\"\n", &[], &ConfigArgs::default()).unwrap();
    assert_eq!(config.limits.cache, ByteSize::gib(1));
}

#[test]
fn unknown_keys_are_refused_by_name_in_file_and_environment() {
    for (file, variables) in [
        ("colour = 1", [("HOME", "/")]),
        ("[access]\nanonymous = true", [("HOME", "/")]),
        ("", [("BALLAST_COLOUR", "1")]),
        ("", [("BALLAST_ACCESS_ANONYMOUS", "true")]),
        ("", [("BALLAST_ACCESS", "true")]),
    ] {
        let error = load(file, &variables, &ConfigArgs::default()).unwrap_err();
        assert!(format!("{error:#}").contains("unknown"), "{error:#}");
    }
}

#[test]
fn values_that_make_no_sense_are_refused() {
    for file in [
        "listen = \"here\"",
        "public_url = \"models.example.com\"",
        "public_url = \"https://models.example.com/\"",
        "[limits]\nuploads = 0",
        "[limits]\ncache = \"much\"",
        "[limits]\nconnections = 0",
        "[limits]\nconnections_per_address = 0",
        "[limits]\nrequests_at_once = 0",
        "[limits]\nrequests_per_second = -1",
        "[tls]\ncertificate = \"/etc/ballast/hub.crt\"",
        "[tls]\nkey = \"/etc/ballast/hub.key\"",
        "[tls]\ncertificate = \"/nowhere/a\"\nkey = \"/nowhere/b\"",
        "[storage]\nurl = \"/srv/hub\"",
        "[storage]\nurl = \"ftp://models\"",
        "[storage]\nfreshness = \"soon\"",
        "[storage]\nregion = \"eu-west-1\"",
        "[storage]\nredirect_downloads = true",
        "[storage]\nurl = \"s3://models\"\naccess_key = \"id\"",
        "[storage]\nurl = \"s3://models\"\nsecret_file = \"/nowhere/at/all\"",
        "[storage]\nurl = \"s3://models\"\nendpoint = \"http://127.0.0.1:1\"",
        "[upstream]\nurl = \"models\"",
        "[cluster]\nlisten = \"8081\"",
        "[cluster]\naddress = \"hub\"",
        "[cluster]\nname = \"The Hub\"",
        "[cluster]\ndiscover = \"sometimes\"",
        "[cluster]\nsite = \"a\\tb\"",
        "[cluster]\nupload = \"fast\"",
        "[cluster]\ndownload = \"0B/s\"",
        "[cluster]\ncarrier = \"pigeon\"",
        "offline = true\n[cluster]\ndiscover = \"always\"",
        "[upstream]\nrevalidate = \"soon\"",
        "[upstream]\nfetches = 0",
        "[upstream]\nurl = \"https://models\"\ntoken_file = \"/nowhere/at/all\"",
        "offline = true\n[storage]\nurl = \"s3://models\"",
        "[log]\nlevel = \"=\"",
        "[log]\nformat = \"xml\"",
    ] {
        load(file, &[], &ConfigArgs::default()).unwrap_err();
    }
    let wrong = [("BALLAST_TRUST_FORWARDED", "perhaps")];
    assert!(load("", &wrong, &ConfigArgs::default()).is_err());
}

#[test]
fn a_bucket_is_named_by_file_or_environment_and_its_secret_stays_in_its_file() {
    let secret = std::env::temp_dir().join(format!("ballast-secret-{}", std::process::id()));
    std::fs::write(&secret, "hidden\n").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let file = format!(
        "[storage]\nurl = \"s3://models/hub\"\naccess_key = \"id\"\nsecret_file = \"{}\"\n",
        secret.display()
    );
    let variables = [
        ("BALLAST_STORAGE_ENDPOINT", "http://127.0.0.1:9000"),
        ("BALLAST_STORAGE_ALLOW_HTTP", "true"),
        ("BALLAST_STORAGE_FRESHNESS", "1500ms"),
    ];
    let config = load(&file, &variables, &ConfigArgs::default()).unwrap();
    assert!(config.storage.location(&config.data).unwrap().is_shared());
    assert_eq!(config.storage.freshness().unwrap().as_millis(), 1500);
    let access = config.storage.access().unwrap();
    assert_eq!(access.endpoint, "http://127.0.0.1:9000");
    assert!(!format!("{config:?} {access:?} {}", config.to_toml().unwrap()).contains("hidden"));
    std::fs::remove_file(secret).unwrap();
}
