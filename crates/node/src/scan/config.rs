//! Configurations in which code may be named: those of `transformers`, and those of Keras.

use serde_json::Value;

use super::verdict::{Scan, Status};

/// Where the classes are that Keras loads without being told to trust anybody.
const KERAS: [&str; 5] = ["keras", "keras_hub", "keras_cv", "keras_nlp", "tensorflow"];
/// Numbers that Python reads and writes, and JSON does not have.
const NO_NUMBERS: [&str; 2] = ["NaN", "Infinity"];

/// Looks into a configuration.
pub(super) fn look(text: &[u8], scan: &mut Scan) {
    let Some(config) = read(text) else {
        scan.note(Status::Caution, "it is no JSON, and what it may name is not looked into");
        return;
    };
    if config.get("auto_map").is_some_and(|map| !map.is_null()) {
        scan.note(Status::Caution, "`auto_map` names code of the repo to be run");
    }
    let mut open = vec![&config];
    while let Some(value) = open.pop() {
        match value {
            Value::Array(values) => open.extend(values),
            Value::Object(fields) => {
                let word = |name: &str| fields.get(name).and_then(Value::as_str);
                if let Some(class) = word("class_name").filter(|_| fields.contains_key("config")) {
                    keras(class, word("module"), scan);
                }
                open.extend(fields.values());
            }
            _ => {}
        }
    }
}

/// A class that Keras makes an object of.
fn keras(class: &str, module: Option<&str>, scan: &mut Scan) {
    scan.kind("keras");
    if matches!(class, "Lambda" | "__lambda__") {
        scan.note(Status::Unsafe, "a `Lambda` layer holds code to be run");
    }
    let package = |module: &str| module.split('.').next().unwrap_or_default().to_owned();
    if let Some(module) = module.filter(|module| !KERAS.contains(&package(module).as_str())) {
        let shown = |text: &str| text.chars().filter(|c| !c.is_control()).take(100).collect();
        let (module, class): (String, String) = (shown(module), shown(class));
        scan.note(Status::Caution, format!("`{module}.{class}` is imported to load it"));
    }
}

/// Reads JSON as Python does.
fn read(text: &[u8]) -> Option<Value> {
    serde_json::from_slice(text).ok().or_else(|| serde_json::from_slice(&plain(text)?).ok())
}

/// The same text with `null` for numbers that JSON does not have; nothing if it is no text.
fn plain(text: &[u8]) -> Option<Vec<u8>> {
    let mut rest = std::str::from_utf8(text).ok()?;
    let (mut out, mut in_string) = (String::with_capacity(rest.len()), false);
    while let Some(next) = rest.chars().next() {
        let word = NO_NUMBERS.iter().find(|word| rest.starts_with(*word));
        match (in_string, next, word) {
            (true, '\\', _) => {
                let escape: String = rest.chars().take(2).collect();
                rest = &rest[escape.len()..];
                out.push_str(&escape);
                continue;
            }
            (false, _, Some(word)) => {
                // Of `-Infinity` the sign would be left.
                if out.ends_with('-') {
                    out.pop();
                }
                out.push_str("null");
                rest = &rest[word.len()..];
                continue;
            }
            (_, '"', _) => in_string = !in_string,
            _ => {}
        }
        out.push(next);
        rest = &rest[next.len_utf8()..];
    }
    Some(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> (Status, String) {
        let mut scan = Scan::default();
        look(text.as_bytes(), &mut scan);
        (scan.status, scan.problems.join("; "))
    }

    #[test]
    fn code_of_the_repo_is_found_whatever_numbers_stand_beside_it() {
        assert_eq!(status(r#"{"a": {"auto_map": {}}}"#).0, Status::Safe);
        for text in [
            r#"{"auto_map": {"AutoModel": "m.M"}}"#,
            r#"{"limit": [0.0, Infinity], "auto_map": {"AutoModel": "m.M"}}"#,
            r#"{"x": -Infinity, "y": NaN, "s": "\\\"NaN", "auto_map": {"AutoModel": "m.M"}}"#,
            r#"{"x": NaN, "\u0061uto_map": {"AutoModel": "m.M"}}"#,
        ] {
            let (status, why) = status(text);
            assert!(status == Status::Caution && why.contains("auto_map"), "{text}: {why}");
        }
        assert_eq!(status(r#"{"limit": [0.0, Infinity], "name": "NaN"}"#).0, Status::Safe);
        let (status, why) = status("{'a': 1}");
        assert!(status == Status::Caution && why.contains("no JSON"), "{why}");
    }

    #[test]
    fn keras_layers_that_hold_or_import_code_are_found() {
        let model = |layer: &str| {
            format!(
                r#"{{"module": "keras", "class_name": "Sequential", "config": {{"layers": [
                {{"module": "keras.layers", "class_name": "Dense", "config": {{}}}}, {layer}]}}}}"#
            )
        };
        let dense = r#"{"module": "keras.layers", "class_name": "Dense", "config": {}}"#;
        assert_eq!(status(&model(dense)).0, Status::Safe);
        let lambda = r#"{"class_name": "Lambda", "config": {"function": {
            "class_name": "__lambda__", "config": {"code": "4wEAAAA="}}}}"#;
        assert_eq!(status(&model(lambda)).0, Status::Unsafe);
        let (found, why) = status(&model(r#"{"module": "os", "class_name": "a", "config": 1}"#));
        assert!(found == Status::Caution && why.contains("`os.a`"), "{why}");
        let like = r#"{"module": "kerasx", "class_name": "A", "config": {}}"#;
        assert_eq!(status(&model(like)).0, Status::Caution);
    }
}
