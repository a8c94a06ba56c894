"""Records and rows of the published code, and mdlm's beside them.

    python tests/peers/published_rows.py check DATALOADER.py KIT --mdlm target/release/mdlm
    python tests/peers/published_rows.py corpus DATALOADER.py ptb ptb.valid.txt KIT --mdlm target/release/mdlm
    python tests/peers/published_rows.py random DATALOADER.py --seed 1 --mdlm target/release/mdlm
    python tests/peers/published_rows.py golden DATALOADER.py KIT tests/it/golden/published_rows.json

DATALOADER.py is `dataloader.py` of kuleshov-group/mdlm (c112c52 or later), whose detokenizers are run as they are. The rest
is written here from what that program and the loaders of `datasets` do to a file: which records it has, which tokens stand
between them, and which of them are joined. `datasets.Dataset.map` shares the records out and makes the batches, and the
tokenizers are Hugging Face's. Needs `datasets`, `tokenizers` and `pyarrow`.

KIT holds `wikitext-2`, `wikitext-2-raw` and `wikitext-103` with their `wiki.{valid,test}.{tokens,raw}`, `gpt2-bpe` with
`encoder.json` and `vocab.bpe`, and `bert-base-uncased` with `vocab.txt`. `check` compares every text of WikiText there,
`corpus` one file of a corpus, record by record and row by row; `random` compares records of random text in the form of each
corpus. All three end with status 1 at a difference. `golden` writes small texts of our own in the corpora's original forms,
their records and their rows, and digests of rows of a text of KIT.
"""

import argparse
import ast
import csv
import hashlib
import io
import json
import random
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import datasets
from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer
from tokenizers.processors import BertProcessing

END_OF_TEXT = "<|endoftext|>"
FUNCTIONS = {
    "ptb": "ptb_detokenizer",
    "wikitext": "wt_detokenizer",
    "lm1b": "lm1b_detokenizer",
    "lambada": "lambada_detokenizer",
    "scientific_papers": "scientific_papers_detokenizer",
}


def detokenizers(path):
    """The functions of the authors' file, by the name of the rule set."""
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    wanted = set(FUNCTIONS.values())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in wanted]
    space = {"re": re}
    exec(compile(tree, path, "exec"), space)
    return {rules: space[name] for rules, name in FUNCTIONS.items()}


# What the loaders of `datasets` make of a file: its records. A file opened as text ends lines at `\n`, `\r\n` and `\r`.


def lines(text):
    return list(io.StringIO(text, newline=None))


def wikitext(text):
    return [line if line.strip() else "" for line in lines(text)]


def stripped(text):
    return [line.strip() for line in lines(text)]


def lambada(text):
    return [json.loads(line)["text"] for line in text.split("\n") if line]


def ag_news(text):
    rows = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    return [" ".join((title, description)) for _, title, description in rows]


def papers(text):
    return ["\n".join(json.loads(line)["article_text"]) for line in lines(text)]


# A corpus: its loader, its rule set, and how mdlm reads its files.
JSON_LINES = {"kind": "json_lines"}
CORPORA = {
    "wikitext": (wikitext, "wikitext", {"kind": "text"}),
    "ptb": (stripped, "ptb", {"kind": "text"}),
    "lm1b": (stripped, "lm1b", {"kind": "text"}),
    "lambada": (lambada, "lambada", {**JSON_LINES, "field": "/text"}),
    "ag_news": (ag_news, None, {"kind": "csv", "columns": ["2", "3"], "header": False}),
    "pubmed": (papers, "scientific_papers", {**JSON_LINES, "field": "/article_text"}),
    "arxiv": (papers, "scientific_papers", {**JSON_LINES, "field": "/article_text"}),
}


def published_records(corpus, text, rules):
    load, name, _ = CORPORA[corpus]
    return [rules[name](record) if name else record for record in load(text)]


class Tokens:
    """A tokenizer as the published code sets it up: how it frames a text decides which token it takes for EOS."""

    def __init__(self, kind, files):
        self.kind = kind
        if kind == "bert":
            self.inner = BertWordPieceTokenizer(str(files["vocabulary"]), lowercase=True)
            bos, eos, self.pad = "[CLS]", "[SEP]", "[PAD]"
        else:
            self.inner = ByteLevelBPETokenizer(str(files["vocabulary"]), str(files["merges"]))
            bos = eos = END_OF_TEXT
            self.pad = "[PAD]"
            self.inner.add_special_tokens([END_OF_TEXT])
            number = self.inner.token_to_id(END_OF_TEXT)
            self.inner._tokenizer.post_processor = BertProcessing((END_OF_TEXT, number), (END_OF_TEXT, number))
            # No token pads: one is added, with the id that the model's mask has.
            self.inner.add_special_tokens([self.pad])
        self.bos = self.inner.encode(bos).ids[0]
        self.eos = self.inner.encode(eos).ids[0]

    def plain(self, texts):
        return [encoding.ids for encoding in self.inner.encode_batch(texts, add_special_tokens=False)]

    def framed(self, texts, length):
        self.inner.enable_truncation(length)
        self.inner.enable_padding(length=length, pad_id=self.inner.token_to_id(self.pad), pad_token=self.pad)
        encodings = self.inner.encode_batch(texts, add_special_tokens=True)
        self.inner.no_truncation()
        self.inner.no_padding()
        return [(encoding.ids, sum(encoding.attention_mask)) for encoding in encodings]


def tokenized(records, tokens):
    """The tokens of each record, without end marks."""
    return datasets.Dataset.from_dict({"tokens": tokens.plain(records)})


def published_rows(documents, length, processes, between, tokens):
    """Rows of `length` tokens: the documents of a batch are joined and cut, and what fills no row is dropped."""
    piece = length - 2
    mark = [tokens.eos] if between == "eos" else []

    def cut(batch):
        joined = [token for document in batch["tokens"] for token in document + mark]
        starts = range(0, len(joined) - piece + 1, piece)
        return {"row": [[tokens.bos, *joined[start : start + piece], tokens.eos] for start in starts]}

    processes = processes if processes > 1 else None
    rows = documents.map(cut, batched=True, num_proc=processes, remove_columns=["tokens"], load_from_cache_file=False)
    return rows["row"][:] if len(rows) else []


def manifest(corpus, path, tokenizer, packings):
    _, rules, form = CORPORA[corpus]
    source = {
        "kind": "source",
        "input": {"kind": "files", "files": [str(path)], "read": {"format": form}},
        "empty_records": "keep",  # which the published rules imply; AG News has none
    }
    if rules:
        source["detokenize"] = [{"rules": rules, "as": "published"}]
    stages = {"text": source, "tokens": {"kind": "tokenize", "from": "text", "tokenizer": tokenizer}}
    for name, packing in packings.items():
        stages[name] = {"kind": "pack", "from": "tokens", "length": packing["length"]}
        if packing["wrap"]:
            grouping = {"kind": "published", "processes": packing["processes"], "between": packing["between"]}
            stages[name]["grouping"] = grouping
        else:
            stages[name]["wrap"] = False
    return {"name": "peer", "seed": 1, "stages": stages}


def packings(lengths, processes):
    wrapped = {
        f"L{length}-p{number}-{between}": {"length": length, "wrap": True, "processes": number, "between": between}
        for length in lengths
        for number in processes
        for between in ("eos", "nothing")
    }
    return wrapped | {f"L{length}-unwrapped": {"length": length, "wrap": False} for length in lengths}


class Run:
    """A run of mdlm in a folder of its own."""

    def __init__(self, mdlm, config):
        self.mdlm = Path(mdlm).resolve()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "peer.json"
        self.path.write_text(json.dumps(config))
        self.failure = ""
        process = subprocess.run(
            [self.mdlm, "run", "--keep-going", self.path], cwd=self.folder.name, capture_output=True, text=True
        )
        if process.returncode:
            self.failure = process.stderr

    def result(self, stage):
        command = [self.mdlm, "path", self.path, stage]
        process = subprocess.run(command, cwd=self.folder.name, capture_output=True, text=True)
        return Path(process.stdout.strip()) if process.returncode == 0 else None

    def column(self, stage, folder, column, glob="*.arrow"):
        import pyarrow

        found = self.result(stage)
        if found is None:
            return None
        values = []
        for shard in sorted((found / folder).glob(glob)):
            with pyarrow.memory_map(str(shard)) as stored:
                values += pyarrow.ipc.open_file(stored).read_all()[column].to_pylist()
        return values


def tokenizer_files(kit):
    kit = Path(kit)
    return {
        "gpt2": {"vocabulary": kit / "gpt2-bpe/encoder.json", "merges": kit / "gpt2-bpe/vocab.bpe"},
        "bert": {"vocabulary": kit / "bert-base-uncased/vocab.txt"},
    }


def setting(kind, files):
    return {"kind": kind, **{field: str(Path(path).resolve()) for field, path in files.items()}}


def compare(corpus, path, kit, rules, mdlm, lengths, processes):
    """Prints what differs in one file; the number of differences."""
    with open(path, encoding="utf-8", newline="") as file:
        records = published_records(corpus, file.read(), rules)
    wrong = 0
    for kind, files in tokenizer_files(kit).items():
        tokens = Tokens(kind, files)
        documents = tokenized(records, tokens)
        chosen = packings(lengths, processes)
        run = Run(mdlm, manifest(corpus, Path(path).resolve(), setting(kind, files), chosen))
        ours = run.column("text", "", "text", "records-*.arrow")
        if ours is None:
            sys.exit(f"mdlm fails: {run.failure}")
        wrong += told(f"{path} {kind} records", records, ours)
        for name, packing in chosen.items():
            length = packing["length"]
            if packing["wrap"]:
                rows = published_rows(documents, length, packing["processes"], packing["between"], tokens)
            else:
                rows = tokens.framed(records, length)
            ours = run.column(name, "train", "input_ids") or []
            if not packing["wrap"]:
                masks = run.column(name, "train", "loss_mask")
                valid = [sum(mask) for mask in masks]
                if kind == "gpt2":
                    # The published padding is the mask's id; mdlm's is EOS. Neither counts.
                    pad = tokens.inner.token_to_id(tokens.pad)
                    rows = [([tokens.eos if token == pad else token for token in row], count) for row, count in rows]
                ours = list(zip(ours, valid))
            wrong += told(f"{path} {kind} {name}", rows, ours)
    return wrong


def told(what, theirs, ours):
    different = [number for number, (one, other) in enumerate(zip(theirs, ours)) if one != other]
    equal = len(theirs) == len(ours) and not different
    print(f"{'equal' if equal else 'DIFFERS'}  {what}: {len(theirs)} published, {len(ours)} mdlm", end="")
    if different:
        number = different[0]
        print(f", {len(different)} differ, first {number}: {theirs[number]!r} and {ours[number]!r}", end="")
    print(flush=True)
    return not equal


WORDS = [
    *"the a dogs boss it He U.S. 5 1990s N $ # £ % s x_y nov. i.e. I'm ... http https café naïve é 三 ½ ﬁ @xmath0 [fig1]".split(),
    *"'s n't 're ' '' ` `` 'em \" ( ) [ ] { } , . : ; ! ? / - = ° “ ” ‘ — @-@ @,@ @.@ <unk> N\\/N \\/".split(),
    *("", "\t", "\u00a0", "\u2003", "\u200b"),
]


def random_texts(seed, count):
    draw = random.Random(seed)
    line = lambda: " ".join(draw.choices(WORDS, k=draw.randint(0, 25)))
    spaced = lambda: draw.choice(("{}", " {}", "{} ", " {} ")).format(line())
    texts = {
        "wikitext": "".join(spaced() + "\n" for _ in range(count)),
        "ptb": "".join(f" {line()} \n" for _ in range(count)),
        "lm1b": "".join(line() + "\n" for _ in range(count)),
        "lambada": as_lines({"text": "\n".join(line() for _ in range(draw.randint(1, 3)))} for _ in range(count)),
        "pubmed": as_lines({"article_text": [spaced() for _ in range(draw.randint(0, 6))]} for _ in range(count)),
    }
    table = io.StringIO()
    rows = ([draw.randint(1, 4), line() or "title", line() or "text"] for _ in range(count))
    csv.writer(table, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return texts | {"ag_news": table.getvalue()}


def compare_random(arguments, rules):
    wrong = 0
    for corpus, text in random_texts(arguments.seed, arguments.records).items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "text"
            path.write_bytes(text.encode())
            config = manifest(corpus, path, {}, {})
            del config["stages"]["tokens"]
            run = Run(arguments.mdlm, config)
            ours = run.column("text", "", "text", "records-*.arrow")
        if ours is None:
            sys.exit(f"mdlm fails: {run.failure}")
        wrong += told(f"{corpus} records", published_records(corpus, text, rules), ours)
    return wrong


# Small texts of our own, in the forms in which the corpora come.

WIKITEXT = (
    " \n = Night Train = \n \n The train left at 9 @.@ 15 , late ; the boss ' s ' own ' words were @-@ odd . \n"
    " = = Early work = = \n \n It lay at 50 ° N and carried 1 @,@ 200 <unk> . \n"
)
PTB = (
    " no it was n't black monday \n the index fell N N to N points on nov. N \n"
    " <unk> paid $ N million for N\\/N of the firm 's shares \n the traders ' union lost # N \n N rose \n"
)
LM1B = (
    'He said : " We do n\'t know , " and left .\nThe U.S. government ( it \'s slow ) paid $ 5 / share !\n'
    "See http : / / a.org / b . Why ?\nO 'Reilly 's bar , ' The End ' , closed .\n"
)
LAMBADA = [
    "“ wait , ” he said , and then he left the old harbour\nbefore anyone could ask him where",
    "  she looked at the sea and the sea looked back  ",
]
AG_NEWS = (
    '"3","Oil rises (Reuters)","Reuters - Prices rose, ""slightly"", on Monday."\n'
    '"4","New chip\\from abroad","A firm said it\'s  ready ."\n"1","Vote","The count goes on. "\n'
)
PAPERS = [
    ["we find @xmath0 , see fig . [ fig1 ] .", "models .", "it is @xcite ( and more ) ; the authors ' view ."],
    [],
    ["a mass of 1 @,@ 5 kg , i.e. heavy . ", " is it ?"],
]

BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]


def small_tokenizers(folder):
    """Files of a BERT whose words are letters and of a GPT-2 without merges."""
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters)]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    others = [byte for byte in range(256) if byte not in BYTES]
    symbols = [chr(byte) for byte in BYTES] + [chr(256 + place) for place in range(len(others))]
    (folder / "vocab.json").write_text(json.dumps({symbol: number for number, symbol in enumerate([*symbols, END_OF_TEXT])}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return {
        "bert": {"vocabulary": folder / "vocab.txt"},
        "gpt2": {"vocabulary": folder / "vocab.json", "merges": folder / "merges.txt"},
    }


def as_lines(values):
    return "".join(json.dumps(value) + "\n" for value in values)


def digest(rows):
    return hashlib.sha256(b"".join(struct.pack(f"<{len(row)}I", *row) for row in rows)).hexdigest()


def golden(dataloader, kit, path):
    rules = detokenizers(dataloader)
    texts = {
        "wikitext": WIKITEXT,
        "ptb": PTB,
        "lm1b": LM1B,
        "lambada": as_lines({"text": text} for text in LAMBADA),
        "ag_news": AG_NEWS,
        "pubmed": as_lines({"article_id": str(n), "article_text": text} for n, text in enumerate(PAPERS)),
    }
    cases = [
        {"corpus": corpus, "text": text, "records": published_records(corpus, text, rules)}
        for corpus, text in texts.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        packs, unwrapped = [], []
        for kind, files in small_tokenizers(Path(folder)).items():
            tokens = Tokens(kind, files)
            # 2,303 records: parts and batches of uneven sizes.
            records = published_records("wikitext", WIKITEXT * 329, rules)[:2303]
            documents = tokenized(records, tokens)
            framed = tokens.framed(published_records("wikitext", WIKITEXT, rules), 24)
            unwrapped.append({"tokenizer": kind, "length": 24, "rows": [row for row, _ in framed]})
            for processes in (1, 2, 3, 8):
                for between in ("eos", "nothing"):
                    rows = published_rows(documents, 64, processes, between, tokens)
                    packs.append(
                        {
                            "tokenizer": kind,
                            "length": 64,
                            "grouping": {"kind": "published", "processes": processes, "between": between},
                            "rows": len(rows),
                            "first": rows[0],
                            "sha256": digest(rows),
                        }
                    )
    text = {"times": 329, "records": 2303}
    name = "wikitext-2-raw/wiki.valid.raw"
    records = published_records("wikitext", (Path(kit) / name).read_text(encoding="utf-8"), rules)
    of_kit = []
    for kind, files in tokenizer_files(kit).items():
        tokens = Tokens(kind, files)
        documents = tokenized(records, tokens)
        for processes in (1, 2, 8):
            rows = published_rows(documents, 1024, processes, "eos", tokens)
            of_kit.append(
                {"file": name, "tokenizer": kind, "processes": processes, "rows": len(rows), "sha256": digest(rows)}
            )
    with open(path, "w") as file:
        file.write('{\n"records": [\n' + ",\n".join(map(json.dumps, cases)) + "\n],\n")
        file.write('"text": ' + json.dumps(text) + ',\n"rows": [\n' + ",\n".join(map(json.dumps, packs)) + "\n],\n")
        file.write('"unwrapped": [\n' + ",\n".join(map(json.dumps, unwrapped)) + "\n],\n")
        file.write('"kit": [\n' + ",\n".join(map(json.dumps, of_kit)) + "\n]\n}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("check", "corpus", "random", "golden"):
        command = commands.add_parser(name)
        command.add_argument("dataloader")
        if name == "corpus":
            command.add_argument("corpus", choices=CORPORA)
            command.add_argument("file")
        if name != "random":
            command.add_argument("kit")
        if name == "golden":
            command.add_argument("path")
            continue
        command.add_argument("--mdlm", default="target/release/mdlm")
        if name == "random":
            command.add_argument("--seed", type=int, default=1)
            command.add_argument("--records", type=int, default=20_000)
        else:
            command.add_argument("--lengths", type=int, nargs="+", default=[128, 1024])
            command.add_argument("--processes", type=int, nargs="+", default=[1, 2, 8])
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    if arguments.command == "golden":
        return golden(arguments.dataloader, arguments.kit, arguments.path)
    rules = detokenizers(arguments.dataloader)
    if arguments.command == "random":
        wrong = compare_random(arguments, rules)
        print(f"{wrong} differences")
        return int(wrong > 0)
    if arguments.command == "corpus":
        files = [(arguments.corpus, arguments.file)]
    else:
        found = sorted(Path(arguments.kit).glob("wikitext*/wiki.*"))
        files = [("wikitext", path) for path in found if "train" not in path.name]
    wrong = 0
    for corpus, path in files:
        wrong += compare(
            corpus, path, arguments.kit, rules, arguments.mdlm, arguments.lengths, arguments.processes
        )
    print(f"{wrong} differences")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
