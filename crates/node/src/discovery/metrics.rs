//! What was measured of a model: the figures of its card's `model-index`, and results in the newer
//! form, which lie in the card or in files of their own.
//!
//! Clients read results strictly: one that lacks what they read would make the whole repo
//! unreadable to them, so it is left out.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Metrics that are kept of one card.
const MAX_METRICS: usize = 200;
/// Results that are kept of one model.
const MAX_RESULTS: usize = 500;

/// A figure that a card gives for its model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// What the model does.
    pub task: Option<String>,
    /// On what data.
    pub dataset: Option<String>,
    /// What is measured.
    pub name: String,
    /// How much.
    pub value: Value,
}

/// The figures of a card's `model-index`.
pub fn of_card(card: &Map<String, Value>) -> Vec<Metric> {
    let list = |value: &Value, name: &str| {
        value.get(name).and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let text = |value: &Value, outer: &str, inner: &str| {
        Some(value.get(outer)?.get(inner)?.as_str()?.to_owned())
    };
    let mut found = Vec::new();
    let models = card.get("model-index").and_then(Value::as_array);
    for result in models.into_iter().flatten().flat_map(|model| list(model, "results")) {
        for metric in list(&result, "metrics") {
            let name = metric.get("type").or_else(|| metric.get("name")).and_then(Value::as_str);
            if let (Some(name), Some(value)) = (name, metric.get("value"))
                && found.len() < MAX_METRICS
            {
                found.push(Metric {
                    task: text(&result, "task", "type"),
                    dataset: text(&result, "dataset", "type")
                        .or_else(|| text(&result, "dataset", "name")),
                    name: name.to_owned(),
                    value: value.clone(),
                });
            }
        }
    }
    found
}

/// Adds what is a result of a list of them.
pub fn add_results(results: &mut Vec<Value>, list: Option<&Value>) {
    let found = list.and_then(Value::as_array).into_iter().flatten();
    let room = MAX_RESULTS.saturating_sub(results.len());
    results.extend(found.filter(|result| is_result(result)).take(room).cloned());
}

fn is_result(result: &Value) -> bool {
    let is_text = |value: &Value| value.is_string();
    let dataset = &result["dataset"];
    let has_source = match &result["source"] {
        Value::Null => true,
        Value::Object(source) => source.get("url").is_some_and(is_text),
        _ => false,
    };
    let has_value = result.get("value").is_some_and(|value| !value.is_null());
    is_text(&dataset["id"]) && is_text(&dataset["task_id"]) && has_value && has_source
}

/// The names that people look for: of metrics, tasks and datasets.
pub fn names<'a>(
    card: &'a Map<String, Value>,
    results: &'a [Value],
) -> impl Iterator<Item = &'a str> {
    let list = |value: &'a Value, name: &str| {
        value.get(name).and_then(Value::as_array).into_iter().flatten()
    };
    let models = card.get("model-index").and_then(Value::as_array).into_iter().flatten();
    let measured = models.flat_map(move |model| list(model, "results")).flat_map(move |result| {
        [&result["task"], &result["dataset"]].into_iter().chain(list(result, "metrics"))
    });
    let named = measured.flat_map(|thing| [&thing["type"], &thing["name"]]);
    let newer = results.iter().flat_map(|result| {
        [&result["dataset"]["id"], &result["dataset"]["task_id"], &result["notes"]]
    });
    named.chain(newer).filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metrics_of_a_model_index_are_found_and_nonsense_is_passed_over() {
        let card = json!({"model-index": [
            {"name": "m", "results": [
                {"task": {"type": "text-generation"}, "dataset": {"type": "mmlu", "name": "MMLU"},
                 "metrics": [{"type": "accuracy", "value": 0.7}, {"value": 1}, "no"]},
                7,
            ]},
            "no",
        ]});
        let found = of_card(card.as_object().expect("an object"));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].dataset.as_deref(), Some("mmlu"));
        assert_eq!(found[0].value, json!(0.7));
    }

    #[test]
    fn results_that_clients_can_not_read_are_left_out() {
        let good = json!({"dataset": {"id": "cais/hle", "task_id": "default"}, "value": 20.9});
        let sourced = json!({
            "dataset": {"id": "a/b", "task_id": "c"}, "value": 1, "source": {"url": "http://x"},
        });
        let list = json!([
            good,
            "text",
            {"dataset": {"id": "cais/hle"}, "value": 1},
            {"dataset": {"id": "cais/hle", "task_id": "default"}},
            {"dataset": {"id": "a", "task_id": "b"}, "value": 1, "source": {"name": "x"}},
            sourced,
        ]);
        let mut results = Vec::new();
        add_results(&mut results, Some(&list));
        add_results(&mut results, Some(&json!({"no": "list"})));
        add_results(&mut results, None);
        assert_eq!(results, [good, sourced]);
    }

    #[test]
    fn what_was_measured_has_names_whatever_form_it_has() {
        let card = json!({"model-index": [{"results": [{
            "task": {"type": "text-generation"}, "dataset": {"type": "mmlu", "name": "MMLU"},
            "metrics": [{"type": "acc", "name": "Accuracy", "value": 1}, 5],
        }, 7]}, "no"]});
        let results = [json!({"dataset": {"id": "cais/hle", "task_id": "hard"}, "value": 1})];
        let card = card.as_object().expect("an object");
        let found: Vec<&str> = names(card, &results).collect();
        let expected = ["text-generation", "mmlu", "MMLU", "acc", "Accuracy", "cais/hle", "hard"];
        assert_eq!(found, expected);
    }
}
