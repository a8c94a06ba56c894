//! Texts that are broken at a column and texts that are not.

use super::*;

/// Words of English, from a small vocabulary, in sentences and paragraphs.
fn prose(seed: u64, paragraphs: usize) -> Vec<String> {
    const WORDS: &[&str] = &[
        "the",
        "a",
        "of",
        "and",
        "in",
        "house",
        "which",
        "letter",
        "morning",
        "considered",
        "before",
        "it",
        "was",
        "almost",
        "impossible",
        "to",
        "say",
        "how",
        "long",
        "they",
        "walked",
        "without",
        "speaking",
        "river",
        "I",
        "London",
        "carriage",
        "understanding",
        "if",
        "only",
        "because",
        "garden",
        "never",
        "again",
        "quietly",
    ];
    let mut state = seed;
    let mut next = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    (0..paragraphs)
        .map(|_| {
            let sentences: Vec<String> = (0..2 + next(6))
                .map(|_| {
                    let words: Vec<&str> = (0..4 + next(20)).map(|_| WORDS[next(WORDS.len())]).collect();
                    let text = words.join(" ");
                    format!("{}{}.", text[..1].to_uppercase(), &text[1..])
                })
                .collect();
            sentences.join(" ")
        })
        .collect()
}

/// Breaks a paragraph as people and editors do: greedily.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().unwrap();
        if !last.is_empty() && last.len() + 1 + word.len() > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

fn column<S: AsRef<str>>(lines: &[S]) -> Option<usize> {
    let mut wrapped = Wrapped::default();
    wrapped.file();
    for line in lines {
        wrapped.line(line.as_ref());
    }
    wrapped.column()
}

#[test]
fn broken_prose_is_recognised() {
    for seed in 0..20 {
        for width in [40, 60, 65, 72, 76, 80, 100] {
            for paragraphs in [3, 40] {
                let text = prose(seed, paragraphs);
                let lines: Vec<String> = text
                    .iter()
                    .flat_map(|text| wrap(text, width).into_iter().chain([String::new()]))
                    .collect();
                let found = column(&lines)
                    .unwrap_or_else(|| panic!("seed {seed} width {width}:\n{}", lines.join("\n")));
                assert!((width - 3..=width).contains(&found), "{found} for {width}");
                assert!(column(&text).is_none(), "one paragraph a line");
            }
        }
    }
    // A book's title, contents and verses are a small part of it.
    let mut book: Vec<String> = [
        "THE BOOK",
        "",
        "CONTENTS",
        "",
        "I. The House",
        "II. The River",
        "III. London",
        "",
    ]
    .map(str::to_owned)
    .into();
    for text in prose(7, 30) {
        book.extend(wrap(&text, 70));
        book.push(String::new());
    }
    assert!(column(&book).is_some());
    // The indent of a paragraph's first line, and no blank lines.
    let mut indented = Vec::new();
    for text in prose(3, 20) {
        let mut lines = wrap(&format!("____{text}"), 72);
        lines[0] = lines[0].replace("____", "    ");
        indented.extend(lines);
    }
    assert!(column(&indented).is_some());
}

#[test]
fn paragraphs_without_blank_lines_are_recognised() {
    for seed in 0..20 {
        for width in [40, 60, 72, 80, 100] {
            let text = prose(seed, 40);
            let lines: Vec<String> = text.iter().flat_map(|text| wrap(text, width)).collect();
            let found = column(&lines).unwrap_or_else(|| panic!("seed {seed} width {width}"));
            assert!((width - 3..=width).contains(&found), "{found} for {width}");
            // Dialogue: a paragraph of a sentence or two.
            let sentences: Vec<String> = (text.iter())
                .flat_map(|text| text.split_inclusive(". "))
                .map(|sentence| sentence.trim_end().to_owned())
                .collect();
            let lines: Vec<String> = (sentences.chunks(2))
                .flat_map(|spoken| wrap(&format!("“{}”", spoken.join(" ")), width.min(72)))
                .collect();
            assert!(
                column(&lines).is_some(),
                "seed {seed} width {width}:\n{}",
                lines.join("\n")
            );
        }
    }
}

#[test]
fn quoted_and_shouted_prose_is_recognised() {
    for seed in 0..20 {
        for width in [40, 60, 72] {
            let text = prose(seed, 30);
            let quoted = |mark: &str, apart: &str| -> Vec<String> {
                (text.iter())
                    .flat_map(|text| {
                        let lines = wrap(text, width).into_iter().map(|line| format!("{mark}{line}"));
                        lines
                            .chain((!apart.is_empty()).then(|| apart.trim_end().to_owned()))
                            .collect::<Vec<_>>()
                    })
                    .collect()
            };
            for lines in [
                quoted("> ", "> "),
                quoted("> ", ""),
                quoted(">> ", ">> "),
                quoted(">", ">"),
            ] {
                let found = column(&lines).unwrap_or_else(|| panic!("seed {seed}:\n{}", lines.join("\n")));
                assert!((width - 3..=width).contains(&found), "{found} for {width}");
            }
            let shouted: Vec<String> = (text.iter())
                .flat_map(|text| wrap(&text.to_uppercase(), width))
                .collect();
            assert!(column(&shouted).is_some(), "seed {seed}:\n{}", shouted.join("\n"));
        }
    }
    // A mail and what it answers.
    let mut mail = Vec::new();
    for (index, text) in prose(5, 20).iter().enumerate() {
        let mark = if index % 2 == 0 { "> " } else { "" };
        mail.extend(wrap(text, 68).into_iter().map(|line| format!("{mark}{line}")));
    }
    assert!(column(&mail).is_some());
}

#[test]
fn quotation_mark_alone_is_no_blank_line() {
    let mut files = WrappedFiles::default();
    for place in ["`a`", "`b`"] {
        files.file(place.to_owned());
        files.line("");
        for text in prose(1, 10) {
            for line in wrap(&text, 72) {
                files.line(&format!("> {line}"));
            }
            files.line(">");
        }
        files.line("");
    }
    // Blank lines at the start and the end of a file part no paragraphs either.
    assert_eq!(files.record(), Some(RecordUnit::File));
    assert!(files.warning().unwrap().contains("each file"));
}

#[test]
fn warning_fits_the_text() {
    let warning = |apart: bool| {
        let mut files = WrappedFiles::default();
        files.file("`a`".to_owned());
        for text in prose(1, 10) {
            for line in wrap(&text, 72) {
                files.line(&line);
            }
            if apart {
                files.line("");
            }
        }
        files.warning().unwrap()
    };
    assert!(
        warning(true).ends_with("\"record\": \"paragraph\"}}`"),
        "{}",
        warning(true)
    );
    assert!(
        warning(false).ends_with("\"record\": \"file\"}}`"),
        "{}",
        warning(false)
    );
}

/// Files of texts, each of so many paragraphs, broken at so many columns or not at all.
fn files(texts: &[(usize, Option<usize>)]) -> WrappedFiles {
    let mut files = WrappedFiles::default();
    for (index, (paragraphs, width)) in texts.iter().enumerate() {
        files.file(format!("`{index}.txt`"));
        for text in prose(index as u64, *paragraphs) {
            match width {
                Some(width) => wrap(&text, *width).iter().for_each(|line| files.line(line)),
                None => files.line(&text),
            }
            files.line("");
        }
    }
    files
}

#[test]
fn files_are_judged_one_by_one() {
    let mut two = files(&[(40, Some(60)), (40, Some(72))]);
    assert_eq!(two.record(), Some(RecordUnit::Paragraph));
    let warning = two.warning().unwrap();
    assert!(warning.starts_with("`0.txt`: each line"), "{warning}");
    assert!(
        warning.contains(" columns (as in 1 more file); to take"),
        "{warning}"
    );
    // Beside others, whose lines are paragraphs: they are most of the lines, so that the choice is left to the user.
    let mut beside = files(&[(400, None), (4, Some(60)), (400, None), (4, Some(80))]);
    assert_eq!(beside.record(), None);
    let warning = beside.warning().unwrap();
    assert!(
        warning.starts_with("`1.txt`: each line") && warning.contains("(as in 1 more file)"),
        "{warning}"
    );
    assert!(
        warning.ends_with("which holds for all files of the source"),
        "{warning}"
    );
    assert_eq!(files(&[(400, None), (4, None)]).warning(), None);
    assert_eq!(WrappedFiles::default().warning(), None);
}

#[test]
fn short_files_are_judged_together() {
    // Four lines a file: of one alone there is nothing to see.
    let lines: Vec<String> = prose(3, 60).iter().flat_map(|text| wrap(text, 60)).collect();
    let mut files = WrappedFiles::default();
    for (index, few) in lines.chunks(4).enumerate() {
        files.file(format!("`{index}.txt`"));
        for line in few {
            files.line(line);
        }
    }
    assert_eq!(files.record(), Some(RecordUnit::File));
    let warning = files.warning().unwrap();
    assert!(warning.starts_with("`0.txt`: each line"), "{warning}");
}

#[test]
fn verse_code_lists_and_tables_are_not_wrapped_prose() {
    // One sentence a line, as in LM1B; and in small letters without an end, as in Penn Treebank.
    let sentences: Vec<String> = prose(11, 300)
        .iter()
        .flat_map(|text| {
            text.split_inclusive(". ")
                .map(|s| s.trim_end().to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(column(&sentences), None);
    let bare: Vec<String> = sentences
        .iter()
        .map(|s| s.trim_end_matches('.').to_lowercase())
        .collect();
    assert_eq!(column(&bare), None);
    // Records that differ in a number only.
    let made: Vec<String> = (0..200)
        .map(|i| format!("the quick brown fox jumps over the lazy dog, for the time number {i}"))
        .collect();
    assert_eq!(column(&made), None);
    // One sentence a line: all capitals, of mixed lengths; and lists, of many items and of headings.
    let shouted: Vec<String> = sentences.iter().map(|s| s.to_uppercase()).collect();
    assert_eq!(column(&shouted), None);
    let quoted: Vec<String> = sentences.iter().map(|s| format!("> {s}")).collect();
    assert_eq!(column(&quoted), None);
    let first = |text: &String, count: usize| text.split(' ').take(count).collect::<Vec<_>>().join(" ");
    let items: Vec<String> = (sentences.iter().enumerate())
        .map(|(index, s)| format!("- {}", first(s, 2 + index * 7 % 8)))
        .collect();
    assert_eq!(column(&items), None);
    let headings: Vec<String> = (sentences.iter().enumerate())
        .map(|(index, s)| first(s, 4 + index * 5 % 4).to_uppercase())
        .collect();
    assert_eq!(column(&headings), None);
    let rows: Vec<String> = (sentences.iter().enumerate())
        .map(|(index, s)| format!("{index},\"{s}\",{}", s.len()))
        .collect();
    assert_eq!(column(&rows), None, "CSV read as text");
    // Clauses, each on its line, and lines of so many words: verse without capitals.
    let words: Vec<&str> = sentences.iter().flat_map(|s| s.split(' ')).collect();
    for count in [6, 8, 11] {
        let verses: Vec<String> = words.chunks(count).map(|line| line.join(" ")).collect();
        assert_eq!(column(&verses), None, "{count} words a line");
        let shouted: Vec<String> = verses.iter().map(|verse| verse.to_uppercase()).collect();
        assert_eq!(column(&shouted), None, "{count} words a line, in capitals");
    }
    let verses = "\
Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\n\
Rough winds do shake the darling buds of May,\nAnd summer's lease hath all too short a date;\n\
Sometime too hot the eye of heaven shines,\nAnd often is his gold complexion dimm'd;\n\
And every fair from fair sometime declines,\nBy chance or nature's changing course untrimm'd;\n\
But thy eternal summer shall not fade,\nNor lose possession of that fair thou ow'st;\n\
Nor shall death brag thou wander'st in his shade,\nWhen in eternal lines to time thou grow'st:\n\
So long as men can breathe or eyes can see,\nSo long lives this, and this gives life to thee.";
    assert_eq!(column(&verses.lines().collect::<Vec<_>>()), None);
    let shouted = verses.to_uppercase();
    assert_eq!(column(&shouted.lines().collect::<Vec<_>>()), None);
    let free = "\
i carry your heart with me in all the long slow\nmornings\nwhen the light comes over the hill and does not ask\n\
for us\nor for anything that we once said\nwe would keep\nand then it is noon again in the small white rooms\n\
where nothing\nmoves but the curtain and the dust\nwhich has no name";
    assert_eq!(column(&free.lines().collect::<Vec<_>>()), None);
    let code = include_str!("../wrapped.rs");
    assert_eq!(column(&code.lines().collect::<Vec<_>>()), None);
    let base64: Vec<String> = (0..100)
        .map(|i| {
            blake3::hash(&[i])
                .to_hex()
                .chars()
                .chain("0123456789ab".chars())
                .collect()
        })
        .collect();
    assert_eq!(column(&base64), None);
    let table: Vec<String> = (0..100)
        .map(|i| format!("{i:>10} {:>12} {:>14} {:>16} {:>9}", i * 7, i * 31, i * 97, i))
        .collect();
    assert_eq!(column(&table), None);
    let short: Vec<String> = prose(2, 30).iter().flat_map(|text| wrap(text, 24)).collect();
    assert_eq!(column(&short), None, "narrower than prose is broken");
    let subtitles: Vec<String> = (prose(2, 40).iter().enumerate())
        .flat_map(|(index, text)| {
            let place = [
                format!("{}", index + 1),
                format!("00:01:{index:02},000 --> 00:01:{index:02},900"),
            ];
            let spoken = wrap(text, 38).into_iter().take(2);
            place
                .into_iter()
                .chain(spoken)
                .chain([String::new()])
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(column(&subtitles), None);
    assert_eq!(column(&[""; 0]), None);
    assert_eq!(column(&["", " ", "a"]), None);
}
