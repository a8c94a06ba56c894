//! The ways through values.

use super::parsed;

#[test]
fn pickle_values_are_found_by_their_keys() {
    // {"a": {"b": [1, 2.5, True]}, 3: "x", "a": {"c": None}, …}: the later "a" counts.
    let pickle = parsed(
        b"\x80\x02}(\x8c\x01a}\x8c\x01b](K\x01G\x40\x04\0\0\0\0\0\0\x88esK\x03\x8c\x01x\x8c\x01zK\x07\x8c\x01a}\x8c\x01cNsu.",
    );
    let root = pickle.root();
    assert_eq!(pickle.find(&["a", "b"]), None);
    assert!(pickle.find(&["a", "c"]).is_some());
    assert_eq!(pickle.find(&["z", "c"]), None);
    assert_eq!(
        pickle.get_at(root, 3).and_then(|node| pickle.text(node)),
        Some("x")
    );
    assert_eq!(pickle.get_at(root, 4), None);
    let names: Vec<&str> = pickle.named(root).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["a", "z"]);
    assert_eq!(pickle.named(root)["a"], pickle.get(root, "a").unwrap());
    let first = pickle.entries(root)[0].1;
    let list = pickle.elements(pickle.get(first, "b").unwrap());
    assert_eq!(pickle.int(list[0]), Some(1));
    assert_eq!(pickle.float(list[0]), Some(1.0));
    assert_eq!(pickle.float(list[1]), Some(2.5));
    assert_eq!(pickle.bool(list[2]), Some(true));
    assert_eq!(
        (
            pickle.int(list[1]),
            pickle.text(list[0]),
            pickle.object(root).is_some()
        ),
        (None, None, false)
    );
}

/// A node of OmegaConf, which is a class that is not known here, as data.
#[test]
fn pickle_objects_show_their_state() {
    let pickle = parsed(
        b"\x80\x02comegaconf.dictconfig\nDictConfig\n)\x81}\x8c\x08_content}\x8c\x06lengthcomegaconf.nodes\nAnyNode\n)\x81}\x8c\x04_valM\0\x04sbssb.",
    );
    let root = pickle.root();
    assert_eq!(pickle.global(root), Some("omegaconf.dictconfig.DictConfig"));
    let content = pickle
        .get(pickle.object(root).unwrap().state.unwrap(), "_content")
        .unwrap();
    let node = pickle.get(content, "length").unwrap();
    let value = pickle
        .get(pickle.object(node).unwrap().state.unwrap(), "_val")
        .unwrap();
    assert_eq!(pickle.int(value), Some(1024));
    let names: Vec<_> = pickle
        .uncalled()
        .iter()
        .map(|global| (&*global.name, global.calls))
        .collect();
    assert_eq!(
        names,
        [
            ("omegaconf.dictconfig.DictConfig", 1),
            ("omegaconf.nodes.AnyNode", 1)
        ]
    );
}

#[test]
fn pickle_values_are_visited_in_the_order_of_the_file() {
    let pickle = parsed(b"\x80\x02](K\x01](K\x02K\x03eK\x04e.");
    let numbers: Vec<i64> = pickle
        .walk(pickle.root())
        .filter_map(|node| pickle.int(node))
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

#[test]
fn pickle_is_described_within_the_budget() {
    let pickle = parsed(b"\x80\x02](K\x01\x8c\x06\xc3\xa4\xc3\xa4\xc3\xa4K\x03e.");
    let whole = "[1, \"äää\", 3]";
    assert_eq!(pickle.describe(pickle.root(), 100), whole);
    for budget in 0..20 {
        let text = pickle.describe(pickle.root(), budget);
        match text.strip_suffix('…') {
            Some(beginning) => assert!(
                whole.starts_with(beginning) && beginning.len() <= budget,
                "{budget}: {text}"
            ),
            None => assert_eq!(text, whole),
        }
    }
}
