//! What a model is for and which library loads it, as far as its files tell.
//!
//! A card that says so is believed. Where it is silent, the class that `config.json` names decides;
//! these tables follow the naming scheme of the classes, not a list of models. An unknown class
//! means that nothing is said.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The tasks that clients know, by the kind of input: text, images, sound, several, others.
const TASKS: &[(&str, &str)] = &[
    ("any-to-any", "Any-to-Any"),
    ("audio-classification", "Audio Classification"),
    ("audio-text-to-text", "Audio-Text-to-Text"),
    ("audio-to-audio", "Audio-to-Audio"),
    ("automatic-speech-recognition", "Automatic Speech Recognition"),
    ("depth-estimation", "Depth Estimation"),
    ("document-question-answering", "Document Question Answering"),
    ("feature-extraction", "Feature Extraction"),
    ("fill-mask", "Fill-Mask"),
    ("graph-ml", "Graph Machine Learning"),
    ("image-classification", "Image Classification"),
    ("image-feature-extraction", "Image Feature Extraction"),
    ("image-segmentation", "Image Segmentation"),
    ("image-text-to-image", "Image-Text-to-Image"),
    ("image-text-to-text", "Image-Text-to-Text"),
    ("image-text-to-video", "Image-Text-to-Video"),
    ("image-to-3d", "Image-to-3D"),
    ("image-to-image", "Image-to-Image"),
    ("image-to-text", "Image-to-Text"),
    ("image-to-video", "Image-to-Video"),
    ("keypoint-detection", "Keypoint Detection"),
    ("mask-generation", "Mask Generation"),
    ("multiple-choice", "Multiple Choice"),
    ("object-detection", "Object Detection"),
    ("other", "Other"),
    ("question-answering", "Question Answering"),
    ("reinforcement-learning", "Reinforcement Learning"),
    ("robotics", "Robotics"),
    ("sentence-similarity", "Sentence Similarity"),
    ("summarization", "Summarization"),
    ("table-question-answering", "Table Question Answering"),
    ("table-to-text", "Table to Text"),
    ("tabular-classification", "Tabular Classification"),
    ("tabular-regression", "Tabular Regression"),
    ("tabular-to-text", "Tabular to Text"),
    ("text-classification", "Text Classification"),
    ("text-generation", "Text Generation"),
    ("text-ranking", "Text Ranking"),
    ("text-retrieval", "Text Retrieval"),
    ("text-to-3d", "Text-to-3D"),
    ("text-to-audio", "Text-to-Audio"),
    ("text-to-image", "Text-to-Image"),
    ("text-to-speech", "Text-to-Speech"),
    ("text-to-video", "Text-to-Video"),
    ("text2text-generation", "Text2Text Generation"),
    ("time-series-forecasting", "Time Series Forecasting"),
    ("token-classification", "Token Classification"),
    ("translation", "Translation"),
    ("unconditional-image-generation", "Unconditional Image Generation"),
    ("video-classification", "Video Classification"),
    ("video-text-to-text", "Video-Text-to-Text"),
    ("video-to-video", "Video-to-Video"),
    ("visual-document-retrieval", "Visual Document Retrieval"),
    ("visual-question-answering", "Visual Question Answering"),
    ("voice-activity-detection", "Voice Activity Detection"),
    ("zero-shot-classification", "Zero-Shot Classification"),
    ("zero-shot-image-classification", "Zero-Shot Image Classification"),
    ("zero-shot-object-detection", "Zero-Shot Object Detection"),
];

/// Every task with the name that people read.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    TASKS.iter().copied()
}

/// Whether clients know this task.
pub fn is_known(task: &str) -> bool {
    TASKS.binary_search_by(|(name, _)| name.cmp(&task)).is_ok()
}

/// How `transformers` loads a model; the only keys that clients take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransformersInfo {
    /// Such as `AutoModelForCausalLM`.
    pub auto_model: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pipeline_tag: Option<String>,
    /// Such as `AutoTokenizer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<String>,
    /// The class in the repo itself, where it brings its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom_class: Option<String>,
}

const TOKENIZER: Option<&str> = Some("AutoTokenizer");
const PROCESSOR: Option<&str> = Some("AutoProcessor");
const IMAGES: Option<&str> = Some("AutoImageProcessor");
const SOUND: Option<&str> = Some("AutoFeatureExtractor");

/// What the end of a class's name says: auto class, task, processor.
const SUFFIXES: &[(&str, &str, Option<&str>, Option<&str>)] = &[
    ("LMHeadModel", "AutoModelForCausalLM", Some("text-generation"), TOKENIZER),
    ("ForCausalLM", "AutoModelForCausalLM", Some("text-generation"), TOKENIZER),
    ("ForMaskedLM", "AutoModelForMaskedLM", Some("fill-mask"), TOKENIZER),
    (
        "ForSequenceClassification",
        "AutoModelForSequenceClassification",
        Some("text-classification"),
        TOKENIZER,
    ),
    (
        "ForTokenClassification",
        "AutoModelForTokenClassification",
        Some("token-classification"),
        TOKENIZER,
    ),
    (
        "ForQuestionAnswering",
        "AutoModelForQuestionAnswering",
        Some("question-answering"),
        TOKENIZER,
    ),
    ("ForMultipleChoice", "AutoModelForMultipleChoice", Some("multiple-choice"), TOKENIZER),
    ("ForPreTraining", "AutoModelForPreTraining", None, TOKENIZER),
    ("ForCTC", "AutoModelForCTC", Some("automatic-speech-recognition"), PROCESSOR),
    (
        "ForSpeechSeq2Seq",
        "AutoModelForSpeechSeq2Seq",
        Some("automatic-speech-recognition"),
        PROCESSOR,
    ),
    (
        "ForAudioClassification",
        "AutoModelForAudioClassification",
        Some("audio-classification"),
        SOUND,
    ),
    (
        "ForImageClassification",
        "AutoModelForImageClassification",
        Some("image-classification"),
        IMAGES,
    ),
    (
        "ForVideoClassification",
        "AutoModelForVideoClassification",
        Some("video-classification"),
        IMAGES,
    ),
    ("ForObjectDetection", "AutoModelForObjectDetection", Some("object-detection"), IMAGES),
    (
        "ForSemanticSegmentation",
        "AutoModelForSemanticSegmentation",
        Some("image-segmentation"),
        IMAGES,
    ),
    (
        "ForInstanceSegmentation",
        "AutoModelForInstanceSegmentation",
        Some("image-segmentation"),
        IMAGES,
    ),
    (
        "ForUniversalSegmentation",
        "AutoModelForUniversalSegmentation",
        Some("image-segmentation"),
        IMAGES,
    ),
    ("ForDepthEstimation", "AutoModelForDepthEstimation", Some("depth-estimation"), IMAGES),
    ("ForVision2Seq", "AutoModelForVision2Seq", Some("image-to-text"), PROCESSOR),
    ("ForImageTextToText", "AutoModelForImageTextToText", Some("image-text-to-text"), PROCESSOR),
    ("ForMaskGeneration", "AutoModelForMaskGeneration", Some("mask-generation"), PROCESSOR),
    ("VisionEncoderDecoderModel", "AutoModelForVision2Seq", Some("image-to-text"), PROCESSOR),
    (
        "CLIPModel",
        "AutoModelForZeroShotImageClassification",
        Some("zero-shot-image-classification"),
        PROCESSOR,
    ),
    (
        "SiglipModel",
        "AutoModelForZeroShotImageClassification",
        Some("zero-shot-image-classification"),
        PROCESSOR,
    ),
    ("Model", "AutoModel", Some("feature-extraction"), TOKENIZER),
];

/// What `config.json` says of how a model is loaded and what for.
pub fn transformers_info(config: &Map<String, Value>) -> Option<TransformersInfo> {
    let class = config.get("architectures")?.as_array()?.first()?.as_str()?;
    let (auto_model, task, processor) = if class.ends_with("ForConditionalGeneration") {
        conditional(config)
    } else {
        let known = SUFFIXES.iter().find(|(suffix, ..)| class.ends_with(suffix));
        let (_, auto_model, task, processor) = known?;
        (*auto_model, *task, *processor)
    };
    let mine = config.get("auto_map").and_then(|map| map.get(auto_model)?.as_str());
    Some(TransformersInfo {
        auto_model: auto_model.to_owned(),
        pipeline_tag: task.map(ToOwned::to_owned),
        processor: processor.map(ToOwned::to_owned),
        custom_class: mine.map(ToOwned::to_owned),
    })
}

/// One suffix means three things: speech, images with text, or text to text.
fn conditional(
    config: &Map<String, Value>,
) -> (&'static str, Option<&'static str>, Option<&'static str>) {
    let family = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let hears = ["whisper", "speech_to_text", "speecht5"].iter().any(|f| family.starts_with(f));
    if hears {
        return ("AutoModelForSpeechSeq2Seq", Some("automatic-speech-recognition"), PROCESSOR);
    }
    if config.contains_key("vision_config") {
        return ("AutoModelForImageTextToText", Some("image-text-to-text"), PROCESSOR);
    }
    let task = if family == "marian" { "translation" } else { "text2text-generation" };
    ("AutoModelForSeq2SeqLM", Some(task), TOKENIZER)
}

/// What the pipeline class of a `diffusers` model is for.
pub fn of_pipeline(class: &str) -> Option<&'static str> {
    let class = class.strip_prefix("Flax").or_else(|| class.strip_prefix("Onnx")).unwrap_or(class);
    let task = if class.contains("Video") || class.contains("AnimateDiff") {
        if class.contains("ImageToVideo")
            || class.contains("ImgToVid")
            || class.contains("StableVideo")
        {
            "image-to-video"
        } else {
            "text-to-video"
        }
    } else if class.contains("Inpaint") || class.contains("Img2Img") || class.contains("Upscale") {
        "image-to-image"
    } else if class.contains("Audio") || class.contains("MusicLDM") {
        "text-to-audio"
    } else if class.starts_with("DDPM") || class.starts_with("DDIM") || class.starts_with("PNDM") {
        "unconditional-image-generation"
    } else if class.ends_with("Pipeline") {
        "text-to-image"
    } else {
        return None;
    };
    Some(task)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(config: &Value) -> Option<(String, Option<String>)> {
        let info = transformers_info(config.as_object()?)?;
        Some((info.auto_model, info.pipeline_tag))
    }

    #[test]
    fn tasks_are_in_order_so_that_they_can_be_searched() {
        assert!(TASKS.is_sorted_by(|a, b| a.0 < b.0));
        assert!(is_known("fill-mask") && !is_known("juggling"));
        for (_, _, task, _) in SUFFIXES {
            assert!(task.is_none_or(is_known), "{task:?}");
        }
    }

    #[test]
    fn classes_tell_the_task() {
        let cases = [
            ("LlamaForCausalLM", "AutoModelForCausalLM", Some("text-generation")),
            ("GPT2LMHeadModel", "AutoModelForCausalLM", Some("text-generation")),
            ("BertForMaskedLM", "AutoModelForMaskedLM", Some("fill-mask")),
            ("BertModel", "AutoModel", Some("feature-extraction")),
            ("BertForPreTraining", "AutoModelForPreTraining", None),
            (
                "CLIPModel",
                "AutoModelForZeroShotImageClassification",
                Some("zero-shot-image-classification"),
            ),
        ];
        for (class, auto_model, task) in cases {
            let expected = Some((auto_model.to_owned(), task.map(ToOwned::to_owned)));
            assert_eq!(of(&json!({ "architectures": [class] })), expected, "{class}");
        }
        for config in [
            json!({}),
            json!({"architectures": "BertModel"}),
            json!({"architectures": []}),
            json!({"architectures": [1]}),
            json!({"architectures": ["Juggler"]}),
        ] {
            assert_eq!(of(&config), None, "{config}");
        }
    }

    #[test]
    fn conditional_generation_depends_on_the_family() {
        let with = |extra: Value| {
            let mut config = json!({"architectures": ["XForConditionalGeneration"]});
            let fields = extra.as_object().cloned().unwrap_or_default();
            config.as_object_mut().expect("it is one").extend(fields);
            of(&config).and_then(|(_, task)| task)
        };
        let task = |text: &str| Some(text.to_owned());
        assert_eq!(with(json!({"model_type": "t5"})), task("text2text-generation"));
        assert_eq!(with(json!({"model_type": "marian"})), task("translation"));
        assert_eq!(with(json!({"model_type": "whisper"})), task("automatic-speech-recognition"));
        assert_eq!(with(json!({"vision_config": {}})), task("image-text-to-text"));
    }

    #[test]
    fn a_repo_may_bring_its_own_class() {
        let config = json!({
            "architectures": ["PhiForCausalLM"],
            "auto_map": {"AutoModelForCausalLM": "modeling_phi.PhiForCausalLM"},
        });
        let info = transformers_info(config.as_object().expect("it is one"));
        let class = info.and_then(|info| info.custom_class);
        assert_eq!(class.as_deref(), Some("modeling_phi.PhiForCausalLM"));
    }

    #[test]
    fn pipelines_tell_the_task() {
        for (class, task) in [
            ("StableDiffusionPipeline", Some("text-to-image")),
            ("FluxPipeline", Some("text-to-image")),
            ("StableDiffusionInpaintPipeline", Some("image-to-image")),
            ("StableVideoDiffusionPipeline", Some("image-to-video")),
            ("TextToVideoSDPipeline", Some("text-to-video")),
            ("DDPMPipeline", Some("unconditional-image-generation")),
            ("Something", None),
        ] {
            assert_eq!(of_pipeline(class), task, "{class}");
        }
    }
}
