//! Which programs on a person's own machine can run a model: what the `apps` filter asks.
//!
//! Judged by format, library and task. A program that is not known here runs nothing.

use super::Facts;

/// What a program takes.
#[derive(Clone, Copy)]
enum Takes {
    Gguf,
    Mlx,
    GgufOrMlx,
    /// Language models as `transformers` keeps them.
    Language,
    Diffusers,
}

const APPS: &[(&str, Takes)] = &[
    ("backyard", Takes::Gguf),
    ("diffusers", Takes::Diffusers),
    ("docker-model-runner", Takes::Gguf),
    ("drawthings", Takes::Diffusers),
    ("invoke", Takes::Diffusers),
    ("jan", Takes::Gguf),
    ("koboldcpp", Takes::Gguf),
    ("lemonade", Takes::Gguf),
    ("llama.cpp", Takes::Gguf),
    ("lmstudio", Takes::GgufOrMlx),
    ("localai", Takes::Gguf),
    ("mlx-lm", Takes::Mlx),
    ("msty", Takes::Gguf),
    ("node-llama-cpp", Takes::Gguf),
    ("ollama", Takes::Gguf),
    ("sglang", Takes::Language),
    ("tgi", Takes::Language),
    ("vllm", Takes::Language),
];

/// Whether a program of this name can run the model.
pub fn runs(app: &str, facts: &Facts) -> bool {
    let is_library = |name: &str| facts.library_name.as_deref() == Some(name);
    let has = |tag: &str| facts.tags.iter().any(|own| own == tag) || is_library(tag);
    let takes = APPS.iter().find(|(name, _)| name.eq_ignore_ascii_case(app));
    match takes.map(|(_, takes)| *takes) {
        None => false,
        Some(Takes::Gguf) => has("gguf"),
        Some(Takes::Mlx) => has("mlx"),
        Some(Takes::GgufOrMlx) => has("gguf") || has("mlx"),
        Some(Takes::Diffusers) => is_library("diffusers"),
        Some(Takes::Language) => {
            let task = facts.pipeline_tag.as_deref();
            let speaks = matches!(task, Some("text-generation" | "image-text-to-text"));
            speaks && has("transformers") && has("safetensors")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_run_what_they_can_read() {
        let facts = |tags: &[&str], task: &str| Facts {
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            pipeline_tag: Some(task.to_owned()),
            ..Facts::default()
        };
        let gguf = facts(&["gguf"], "text-generation");
        let mlx = facts(&["mlx", "safetensors"], "text-generation");
        let language = facts(&["transformers", "safetensors"], "text-generation");
        let masks = facts(&["transformers", "safetensors"], "fill-mask");
        for (app, expected) in [
            ("llama.cpp", [true, false, false, false]),
            ("Ollama", [true, false, false, false]),
            ("lmstudio", [true, true, false, false]),
            ("mlx-lm", [false, true, false, false]),
            ("vllm", [false, false, true, false]),
            ("unheard-of", [false; 4]),
        ] {
            let found = [&gguf, &mlx, &language, &masks].map(|facts| runs(app, facts));
            assert_eq!(found, expected, "{app}");
        }
    }
}
