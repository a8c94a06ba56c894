//! The machine: what it makes of opcodes, and what it refuses.

use proptest::prelude::*;

use super::super::values::{PickleNode, PickleValue, UncalledGlobal};
use super::{call_of, parse_fault, parsed, python};
use crate::weights::torch::pickle::parse;

/// Opcodes between the protocol and the end, and the value as Python prints it.
fn made(opcodes: &[u8]) -> String {
    python(&parsed(&[b"\x80\x02", opcodes, b"."].concat()))
}

fn fault(opcodes: &[u8]) -> String {
    parse_fault(&[b"\x80\x04", opcodes].concat())
}

#[test]
fn pickle_literals_are_read() {
    for (opcodes, expected) in [
        (&b"N"[..], "None"),
        (b"\x88", "True"),
        (b"\x89", "False"),
        (b"K\xff", "255"),
        (b"M\xff\xff", "65535"),
        (b"J\xff\xff\xff\xff", "-1"),
        (b"\x8a\x00", "0"),
        (b"\x8a\x01\x80", "-128"),
        (b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", "9223372036854775807"),
        (b"\x8a\x09\0\0\0\0\0\0\0\0\x01", "<integer of 9 bytes>"),
        (b"\x8b\x02\0\0\0\0\x01", "256"),
        (b"G\x3f\xf8\0\0\0\0\0\0", "1.5"),
        (b"X\x02\0\0\0hi", "\"hi\""),
        (b"\x8c\x02hi", "\"hi\""),
        (b"\x8d\x02\0\0\0\0\0\0\0hi", "\"hi\""),
        (b"X\x03\0\0\0\xed\xa0\x80", "\"\u{fffd}\u{fffd}\u{fffd}\""),
        (b"C\x02hi", "<2 bytes>"),
        (b"B\x02\0\0\0hi", "<2 bytes>"),
        (b"\x8e\x02\0\0\0\0\0\0\0hi", "<2 bytes>"),
        (b"\x96\x02\0\0\0\0\0\0\0hi", "<2 bytes>"),
        (b"U\x02hi", "\"hi\""),
        (b"U\x02\xff\xfe", "<2 bytes>"),
        (b"T\x02\0\0\0hi", "\"hi\""),
    ] {
        assert_eq!(made(opcodes), expected, "{}", opcodes.escape_ascii());
    }
}

#[test]
fn pickle_collections_are_read() {
    for (opcodes, expected) in [
        (&b"]"[..], "[]"),
        (b"](K\x01K\x02eK\x03a", "[1, 2, 3]"),
        (b"(K\x01K\x02l", "[1, 2]"),
        (b")", "()"),
        (b"K\x01\x85", "(1,)"),
        (b"K\x01K\x02\x86", "(1, 2)"),
        (b"K\x01K\x02K\x03\x87", "(1, 2, 3)"),
        (b"(K\x01t", "(1,)"),
        (b"}\x8c\x01aK\x01s", "{\"a\": 1}"),
        (b"}(\x8c\x01aK\x01\x8c\x01bNu", "{\"a\": 1, \"b\": None}"),
        (b"(\x8c\x01aK\x01d", "{\"a\": 1}"),
        (b"\x8f", "set()"),
        (b"\x8f(K\x01K\x02\x90", "{1, 2}"),
        (b"(K\x01\x91", "{1}"),
        (b"\x95\x02\0\0\0\0\0\0\0K\x01", "1"),
        // The stack: 1 is put down twice, a mark and all above it are dropped.
        (b"K\x01(K\x02K\x0312\x86", "(1, 1)"),
        (b"K\x01(0K\x020", "1"),
        // The memo, by each of its opcodes.
        (b"\x8c\x01aq\x07h\x07\x86", "(\"a\", \"a\")"),
        (b"\x8c\x01ar\0\0\x01\0j\0\0\x01\0\x86", "(\"a\", \"a\")"),
        (b"\x8c\x01a\x94h\0\x86", "(\"a\", \"a\")"),
    ] {
        assert_eq!(made(opcodes), expected, "{}", opcodes.escape_ascii());
    }
}

#[test]
fn pickle_of_known_constructors_is_read_as_values() {
    for (opcodes, expected) in [
        (&b"ccollections\nOrderedDict\n)R\x8c\x01aK\x01s"[..], "{\"a\": 1}"),
        (b"ccollections\nOrderedDict\n]K\x01K\x02\x86a\x85R", "{1: 2}"),
        (b"ctorch\nSize\nK\x02K\x03\x86\x85R", "(2, 3)"),
        (b"ctorch\nfloat32\n", "torch.float32"),
        (b"ctorch\ndevice\n\x8c\x03cpu\x85R", "<torch.device(\"cpu\",)>"),
        (b"c_codecs\nencode\n\x8c\x03\xc3\xbfa\x8c\x06latin1\x86R", "<2 bytes>"),
        (b"c__builtin__\nbytes\n)R", "<0 bytes>"),
        (
            b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\n\x8c\x02f8\x89\x88\x87R(K\x03\x8c\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\
              C\x08\0\0\0\0\0\0\xf8\x3f\x86R",
            "1.5",
        ),
        (
            b"cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\n\x8c\x02i4\x89\x88\x87R(K\x03\x8c\x01<NNNK\0K\0K\0tbC\x04\xfe\xff\xff\xff\x86R",
            "-2",
        ),
    ] {
        let pickle = parsed(&[b"\x80\x02", opcodes, b"."].concat());
        assert_eq!(python(&pickle), expected, "{}", opcodes.escape_ascii());
        assert_eq!(pickle.uncalled(), [], "{}", opcodes.escape_ascii());
    }
}

/// A scalar whose highest byte comes first, or of another type, stays an object with its bytes.
#[test]
fn pickle_of_an_unusual_numpy_scalar_is_kept_as_an_object() {
    let scalar = |code: &[u8], order: &[u8]| {
        [
            b"\x80\x02cnumpy._core.multiarray\nscalar\ncnumpy\ndtype\n\x8c\x02",
            code,
            b"\x89\x88\x87R(K\x03\x8c\x01",
            order,
            b"tbC\x04\0\0\0\0\x86R.",
        ]
        .concat()
    };
    for bytes in [scalar(b"f4", b">"), scalar(b"S4", b"|"), scalar(b"f8", b"<")] {
        let pickle = parsed(&bytes);
        assert_eq!(
            pickle.global(pickle.root()),
            Some("numpy._core.multiarray.scalar")
        );
        assert_eq!(pickle.uncalled().len(), 1);
    }
}

#[test]
fn pickle_calls_nothing_and_lists_the_globals() {
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("socket", "create_connection"),
        ("subprocess", "Popen"),
        ("torch.storage", "_load_from_bytes"),
        ("collections", "OrderedDict.fromkeys"),
        ("torch", "_utils._rebuild_tensor_v3"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("called");
        let pickle = parsed(&call_of(module, name, &format!("touch {}", place.display())));
        assert!(!place.exists());
        let full = format!("{module}.{name}");
        assert_eq!(
            pickle.uncalled(),
            [UncalledGlobal {
                name: full.clone(),
                at: 2,
                calls: 1
            }]
        );
        assert_eq!(pickle.global(pickle.root()), Some(&*full));
        let args = pickle.object(pickle.root()).unwrap().args;
        let argument = pickle.text(pickle.elements(args)[0]).unwrap();
        assert!(argument.starts_with("touch "), "{argument}");
    }
}

/// Each way in which a pickle can call something.
#[test]
fn pickle_calls_of_every_kind_become_objects() {
    for (opcodes, expected) in [
        (&b"cm\nf\nK\x01\x85R"[..], "<m.f(1,)>"),
        (b"\x8c\x01m\x8c\x01f\x93K\x01\x85R", "<m.f(1,)>"),
        (b"cm\nC\nK\x01\x85\x81", "<m.C(1,)>"),
        (b"cm\nC\n)}\x8c\x01aK\x01s\x92", "<m.C() {\"a\": 1}>"),
        (b"(cm\nC\nK\x01o", "<m.C(1,)>"),
        // The result of a call is called: a function that `getattr` would have found.
        (b"cm\nf\n)R)R", "<<m.f()>()>"),
        (b"cm\nC\n)\x81}\x8c\x01aK\x01sb", "<m.C() {\"a\": 1}>"),
        (b"cm\nC\n)\x81(K\x01K\x02u", "<m.C() {1: 2}>"),
        (b"cm\nC\n)\x81(K\x01K\x02e", "<m.C() [1, 2]>"),
        (b"cm\nC\n)\x81(K\x01K\x02\x90", "<m.C() [1, 2]>"),
    ] {
        assert_eq!(made(opcodes), expected, "{}", opcodes.escape_ascii());
    }
    // A state that an ordered dict has does not hide its items.
    let pickle = parsed(b"\x80\x02ccollections\nOrderedDict\n)R\x8c\x01aK\x01s}\x8c\x09_metadataNsb.");
    assert_eq!(python(&pickle), "{\"a\": 1}");
    let PickleValue::Dict {
        state: Some(state), ..
    } = pickle.value(pickle.root())
    else {
        panic!("no state");
    };
    assert!(pickle.get(*state, "_metadata").is_some());
}

/// As Python does.
#[test]
fn pickle_values_that_stay_on_the_stack_are_dropped() {
    assert_eq!(made(b"NK\x05"), "5");
    // A mark that is popped like a value.
    assert_eq!(made(b"K\x01(0"), "1");
}

#[test]
fn pickle_faults_name_the_byte() {
    for (opcodes, expected) in [
        (&b"\xfe."[..], "has an unknown opcode, 0xfe (byte 2)"),
        (b".", "takes from an empty stack (byte 2)"),
        (b"(.", "takes from an empty stack (byte 3)"),
        (b"K\x01(a", "takes from an empty stack (byte 5)"),
        (b"t", "takes from an empty stack (byte 2)"),
        (
            b"h\x05",
            "asks for entry 5 of its memo, which is not set (byte 2)",
        ),
        (
            b"X\xff\xff\xff\xffab",
            "states a length of 4294967295 bytes, and 2 follow (byte 2)",
        ),
        (
            b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff",
            "states a length of 18446744073709551615 bytes, and 0 follow",
        ),
        (
            b"\x95\0\0\0\0\0\x01\0\0.",
            "states a length of 1099511627776 bytes, and 1 follow",
        ),
        (
            b"\x8b\xff\xff\xff\xff",
            "states a length of 4294967295 bytes, and 0 follow",
        ),
        (b"I1\n.", "has the opcode `I` of protocol 0"),
        (b"P1\n.", "has the opcode `P` of protocol 0"),
        (b"\x82\x01.", "registry of `copyreg`"),
        (b"\x97.", "refers to bytes outside of the pickle"),
        (b"cos\nsystem", "names a global whose name does not end"),
        (b"c\xff\nsystem\n.", "names a global that is not UTF-8"),
        (
            b"K\x01K\x02\x93.",
            "names a global by something other than two texts",
        ),
        (
            b"K\x01Q.",
            "refers to something outside of the pickle that is not a storage",
        ),
        (b"K\x01K\x02b.", "gives a state to a number"),
        (b"cm\nC\nNb.", "gives a state to a class or function"),
        (b")K\x01a.", "adds elements to a tuple"),
        (b"](K\x01\x90.", "adds elements to a list"),
        (b"]K\x01K\x02s.", "sets items of a list"),
        (b"}(K\x01u.", "has a key without a value"),
        (b"N.N", "ends, but 1 byte follows (byte 3)"),
        (
            b"ctorch._utils\n_rebuild_tensor_v2\nNR.",
            "calls a known function with arguments that are not a short tuple",
        ),
        (
            b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
            "calls `torch._utils._rebuild_tensor_v2` with 0 arguments",
        ),
        (
            b"ctorch._utils\n_rebuild_parameter\nNN\x86R.",
            "makes a parameter of something other than a tensor",
        ),
        (
            b"ctorch\nSize\n]\x85R.",
            "makes a `torch.Size` of something other than a tuple",
        ),
        (
            b"ccollections\nOrderedDict\n]K\x01a\x85R.",
            "makes an ordered dict of something other than pairs",
        ),
        (
            b"c_codecs\nencode\n\x8c\x02\xc4\x80\x8c\x06latin1\x86R.",
            "encodes a text in Latin-1 that has other characters",
        ),
    ] {
        let text = fault(opcodes);
        assert!(text.contains(expected), "{}: {text}", opcodes.escape_ascii());
    }
    for (bytes, expected) in [
        (&b""[..], "truncated after 0 bytes"),
        (b"\x80", "truncated after 1 byte"),
        (b"\x80\x02", "truncated after 2 bytes"),
        (b"\x80\x06N.", "is of protocol 6, and 2 to 5 are read"),
        (b"\x80\x01N.", "is of protocol 1, and 2 to 5 are read"),
        (b"N.", "has no protocol: it is of protocol 0 or 1"),
    ] {
        let text = parse_fault(bytes);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn pickle_with_a_million_levels_is_read_and_visited_without_recursion() {
    let levels = 1_000_000;
    let bytes = [
        b"\x80\x02",
        &vec![b']'; levels][..],
        &vec![b'a'; levels - 1],
        b".",
    ]
    .concat();
    let pickle = parsed(&bytes);
    assert_eq!(pickle.walk(pickle.root()).count(), levels);
    assert_eq!(pickle.describe(pickle.root(), 20), format!("{}…", "[".repeat(20)));
    drop(pickle);
    let tuples = parsed(&[b"\x80\x02N", &vec![0x85; levels][..], b"."].concat());
    assert_eq!(tuples.walk(tuples.root()).count(), levels + 1);
    // Marks are what a pickler leaves open while it calls itself.
    let text = parse_fault(&[b"\x80\x02", &vec![b'('; levels][..], b"."].concat());
    assert!(
        text.contains("would have more than 10000 levels (byte 10002)"),
        "{text}"
    );
}

#[test]
fn pickle_with_too_many_globals_is_refused() {
    let globals = |count: usize| {
        let names = (0..count).flat_map(|number| format!("cm\nC{number}\n0").into_bytes());
        [b"\x80\x02".to_vec(), names.collect(), b"N.".to_vec()].concat()
    };
    assert_eq!(parsed(&globals(10_000)).uncalled().len(), 10_000);
    let text = parse_fault(&globals(10_001));
    assert!(text.contains("would have more than 10000 globals"), "{text}");
}

#[test]
fn pickle_with_too_many_values_is_refused() {
    let text = parse_fault(&[b"\x80\x02", &vec![b'}'; 5_000_000][..], b"."].concat());
    assert!(
        text.contains("would have more than 4194304 values (byte 4194306)"),
        "{text}"
    );
    let text = parse_fault(&[b"\x80\x02N", &vec![b'2'; 5_000_000][..], b"."].concat());
    assert!(
        text.contains("would have more than 4194304 values on its stack"),
        "{text}"
    );
    let text = parse_fault(&[b"\x80\x02N", &vec![0x94; 5_000_000][..], b"."].concat());
    assert!(
        text.contains("would have more than 4194304 entries of its memo"),
        "{text}"
    );
    let name = "n".repeat(2000);
    let text = parse_fault(&[b"\x80\x02cos\n", name.as_bytes(), b"\n."].concat());
    assert!(text.contains("a global whose name does not end"), "{text}");
    let length = 2000_u32.to_le_bytes();
    let text = parse_fault(&[b"\x80\x02\x8c\x02osX", &length[..], name.as_bytes(), b"\x93."].concat());
    assert!(
        text.contains("names a global with 1006 bytes, and 1000 are read at most"),
        "{text}"
    );
}

#[test]
fn pickle_that_contains_itself_is_visited_once() {
    // A list, a dict, and an object, each in itself, and a tuple by way of a list.
    for bytes in [
        &b"\x80\x02]q\0h\0a."[..],
        b"\x80\x02}q\0\x8c\x01ah\0s.",
        b"\x80\x02cm\nC\n)\x81q\0h\0b.",
        b"\x80\x02]q\0(h\0h\0h\0ta.",
    ] {
        let pickle = parsed(bytes);
        assert!(pickle.walk(pickle.root()).count() <= 4);
        let text = pickle.describe(pickle.root(), 100);
        assert!(text.ends_with('…') && text.len() <= 103, "{text}");
    }
}

/// Each level has the one below it ten times: 10^30 values, if they were copied.
#[test]
fn pickle_of_a_billion_laughs_stays_small() {
    let mut bytes = b"\x80\x02\x8c\x03lol\x94".to_vec();
    for level in 0..30_u8 {
        bytes.push(b'(');
        bytes.extend([b'h', level].repeat(10));
        bytes.extend(b"t\x94");
    }
    bytes.push(b'.');
    let pickle = parsed(&bytes);
    assert_eq!(pickle.walk(pickle.root()).count(), 31);
    let text = pickle.describe(pickle.root(), 1000);
    assert!(text.len() <= 1003 && text.ends_with('…'));

    // A list that is copied into a dict again and again, and a text that is encoded so.
    let mut copies = b"\x80\x02ccollections\nOrderedDict\n\x94](".to_vec();
    copies.extend(b"NN\x86".repeat(1000));
    copies.extend(b"e\x85\x94");
    copies.extend(b"h\0h\x01R0".repeat(100));
    copies.push(b'.');
    let text = parse_fault(&copies);
    assert!(text.contains("copies the same list again and again"), "{text}");
    let mut codes = b"\x80\x02c_codecs\nencode\n\x94X\x10\x27\0\0".to_vec();
    codes.extend(b"x".repeat(10_000));
    codes.extend(b"\x8c\x06latin1\x86\x94");
    codes.extend(b"h\0h\x01R".repeat(1000));
    codes.extend(b"h\0h\x01R.");
    let pickle = parsed(&codes);
    assert_eq!(
        pickle
            .nodes
            .iter()
            .filter(|value| matches!(value, PickleValue::Bytes(_)))
            .count(),
        1
    );
}

/// A pickle with most opcodes.
fn sample() -> Vec<u8> {
    [
        b"\x80\x04\x95\x05\0\0\0\0\0\0\0}\x94(\x8c\x01a\x94](K\x01M\x01\x02J\x01\x02\x03\x04eX\x01\0\0\0bccollections\nOrderedDict\n)R",
        &b"\x8c\x01c\x8f(NK\x02\x90\x8c\x01d\x8c\x01m\x8c\x01f\x93)\x81}\x8c\x01xG\x3f\xf8\0\0\0\0\0\0sbh\x01C\x02hiu"[..],
        b"\x8c\x01tctorch._utils\n_rebuild_tensor_v2\n((\x8c\x07storagectorch\nFloatStorage\n\x8c\x010\x8c\x03cpuK\x04tQK\0K\x02K\x02\x86K\x02K\x01\x86\x89",
        b"ccollections\nOrderedDict\n)RtRs.",
    ]
    .concat()
}

#[test]
fn pickle_cut_anywhere_is_refused_and_changed_anywhere_does_not_panic() {
    let whole = sample();
    let pickle = parsed(&whole);
    assert_eq!(
        python(&pickle),
        "{\"a\": [1, 513, 67305985], \"b\": {}, \"c\": {None, 2}, \"d\": <m.f() {\"x\": 1.5}>, \"a\": <2 bytes>, \
         \"t\": tensor(2, 2) of float32}"
    );
    for cut in 0..whole.len() {
        parse_fault(&whole[..cut]);
    }
    for at in 0..whole.len() {
        for byte in 0..=255 {
            let mut changed = whole.clone();
            changed[at] = byte;
            if let Ok(pickle) = parse(&changed) {
                let _ = pickle.walk(pickle.root()).count();
                let _ = pickle.describe(pickle.root(), 100);
            }
        }
    }
}

proptest! {
    #[test]
    fn pickle_of_any_bytes_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = [b"\x80\x04", &bytes[..], b"."].concat();
        if let Ok(pickle) = parse(&bytes) {
            let nodes: Vec<PickleNode> = pickle.walk(pickle.root()).collect();
            prop_assert!(nodes.len() <= pickle.nodes.len());
            prop_assert!(pickle.describe(pickle.root(), 50).chars().count() <= 51);
        }
    }
}
