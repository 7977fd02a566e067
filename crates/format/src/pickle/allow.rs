//! The names that are known to do no harm, whatever they are called with.
//!
//! A name is here if calling it, making an instance of it, or giving it a state makes a value and
//! does nothing else. Lists of forbidden names are got round every few months; this one fails the
//! other way: what is not on it is dangerous. Names that make other names (`getattr`, `type`,
//! `functools.partial`, `operator.attrgetter`, `importlib`, `copyreg.__newobj__` of anything) never
//! belong here.

use super::Safety;

const BUILTINS: &[&str] = &[
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "object",
    "range",
    "set",
    "slice",
    "str",
    "tuple",
];
/// The same as Python 2 has them.
const BUILTINS_2: &[&str] = &[
    "bool",
    "bytearray",
    "bytes",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "long",
    "object",
    "set",
    "slice",
    "str",
    "tuple",
    "unicode",
    "xrange",
];
const NUMPY: &[&str] = &[
    "bool_",
    "complex128",
    "complex64",
    "dtype",
    "float16",
    "float32",
    "float64",
    "int16",
    "int32",
    "int64",
    "int8",
    "ndarray",
    "uint16",
    "uint32",
    "uint64",
    "uint8",
];
const TORCH: &[&str] = &[
    "BFloat16Storage",
    "BoolStorage",
    "ByteStorage",
    "CharStorage",
    "ComplexDoubleStorage",
    "ComplexFloatStorage",
    "DoubleStorage",
    "FloatStorage",
    "HalfStorage",
    "IntStorage",
    "LongStorage",
    "QInt32Storage",
    "QInt8Storage",
    "QUInt8Storage",
    "ShortStorage",
    "Size",
    "Tensor",
    "bfloat16",
    "bool",
    "complex128",
    "complex64",
    "device",
    "float",
    "float16",
    "float32",
    "float64",
    "float8_e4m3fn",
    "float8_e5m2",
    "half",
    "int16",
    "int32",
    "int64",
    "int8",
    "long",
    "per_channel_affine",
    "per_tensor_affine",
    "qint32",
    "qint8",
    "quint8",
    "strided",
    "uint8",
];
const TORCH_UTILS: &[&str] = &[
    "_rebuild_device_tensor_from_numpy",
    "_rebuild_meta_tensor_no_storage",
    "_rebuild_parameter",
    "_rebuild_parameter_with_state",
    "_rebuild_qtensor",
    "_rebuild_sparse_tensor",
    "_rebuild_tensor",
    "_rebuild_tensor_v2",
    "_rebuild_tensor_v3",
];

const TORCH_JIT: &[&str] = &[
    "build_boollist",
    "build_doublelist",
    "build_intlist",
    "build_tensorlist",
    "restore_type_tag",
];

/// Modules with the names of each that do no harm.
const ALLOWED: &[(&str, &[&str])] = &[
    ("__builtin__", BUILTINS_2),
    ("_codecs", &["encode"]),
    ("argparse", &["Namespace"]),
    ("builtins", BUILTINS),
    ("collections", &["Counter", "OrderedDict", "deque"]),
    ("copy_reg", &["_reconstructor"]),
    ("copyreg", &["_reconstructor"]),
    ("datetime", &["date", "datetime", "time", "timedelta", "timezone"]),
    ("decimal", &["Decimal"]),
    ("fractions", &["Fraction"]),
    ("joblib.numpy_pickle", &["NumpyArrayWrapper"]),
    ("numpy", NUMPY),
    ("numpy._core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy._core.numeric", &["_frombuffer"]),
    ("numpy.core.multiarray", &["_reconstruct", "scalar"]),
    ("numpy.core.numeric", &["_frombuffer"]),
    ("pathlib", &["PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"]),
    ("torch", TORCH),
    ("torch._tensor", &["_rebuild_from_type_v2"]),
    ("torch._utils", TORCH_UTILS),
    ("torch.jit._pickle", TORCH_JIT),
    ("torch.nn.parameter", &["Buffer", "Parameter"]),
    ("torch.serialization", &["_get_layout"]),
    ("torch.storage", &["TypedStorage", "UntypedStorage"]),
    ("uuid", &["UUID"]),
];

/// What the import of this name may do.
pub fn safety(module: &str, name: &str) -> Safety {
    if module == "__torch__" || module.starts_with("__torch__.") {
        // No module of Python is called so: only a loader of TorchScript finds it, in the archive.
        return Safety::Suspicious;
    }
    let names = ALLOWED.binary_search_by_key(&module, |(module, _)| module);
    match names {
        Ok(at) if ALLOWED[at].1.contains(&name) => Safety::Innocuous,
        _ => Safety::Dangerous,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_in_order_so_that_they_are_found() {
        assert!(ALLOWED.is_sorted_by_key(|(module, _)| *module));
        for (module, names) in ALLOWED {
            assert!(names.iter().all(|name| safety(module, name) == Safety::Innocuous));
        }
    }

    #[test]
    fn torchscript_is_told_apart() {
        assert_eq!(safety("__torch__.model", "Net"), Safety::Suspicious);
        assert_eq!(safety("__torch__x", "Net"), Safety::Dangerous);
    }

    #[test]
    fn only_the_exact_name_is_allowed() {
        for (module, name) in [
            ("os", "system"),
            ("builtins", "eval"),
            ("builtins", "getattr"),
            ("builtins", "list.__class__"),
            ("builtins ", "list"),
            ("Builtins", "list"),
            ("torch.storage", "_load_from_bytes"),
            ("collections", "OrderedDict.__init__"),
            ("collections", "_sys.modules"),
            ("", ""),
        ] {
            assert_eq!(safety(module, name), Safety::Dangerous, "{module}.{name}");
        }
    }
}
