"""Ids that Hugging Face's own Python tokenizers give, written to token_ids.json beside this file.

    pip install tokenizers==0.22.1
    python tests/it/golden/token_ids.py BERT_VOCAB_TXT GPT2_VOCAB_JSON GPT2_MERGES_TXT

The files are bert-base-uncased's vocab.txt and GPT-2's vocab.json and merges.txt (OpenAI's encoder.json and vocab.bpe).
Special tokens are tokenized as text, as `mdlm` does: `encode_special_tokens = True`.
"""

import json
import pathlib
import sys

from tokenizers import BertWordPieceTokenizer, ByteLevelBPETokenizer

TEXTS = [
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    " leading and  double   spaces, trailing ",
    "tabs\tand\nline\r\nbreaks\n\n",
    "don't can't we've I'm you'll he'd they're it's IT'S",
    "na\u00efve caf\u00e9 \u00dcber e\u0301 \u0130stanbul \u1e9e stra\u00dfe",
    "\u65e5\u672c\u8a9e\u3068\u4e2d\u6587 mixed\u5b57 \ud55c\uad6d\uc5b4 \u0e44\u0e17\u0e22 \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \U0001f680!",
    "3.14159 1,000,000 2\u00b2 \u00bd \u2167 100%",
    "zero\u200bwidth nb\u00a0space soft\u00adhyphen bom\ufeff nul\u0000 bell\u0007 \ufffd",
    "[MASK] [CLS] [SEP] [PAD] [UNK] <|endoftext|> <mask>",
    "a" * 120,
    "supercalifragilisticexpialidocious pneumonoultramicroscopicsilicovolcanoconiosis",
    "$5 (five) \"quoted\" \u201ccurly\u201d \u2014 dash\u2026 x^2_y ~`|\\",
    " = Valkyria Chronicles III = ",
    "",
    " ",
]


def main():
    bert_vocab, gpt2_vocab, gpt2_merges = sys.argv[1:]
    bert = BertWordPieceTokenizer(bert_vocab, lowercase=True)
    gpt2 = ByteLevelBPETokenizer(gpt2_vocab, gpt2_merges)
    gpt2.add_special_tokens(["<|endoftext|>"])
    result = []
    for tokenizer in (bert, gpt2):
        tokenizer._tokenizer.encode_special_tokens = True
    for text in TEXTS:
        result.append(
            {
                "text": text,
                "bert": bert.encode(text, add_special_tokens=False).ids,
                "gpt2": gpt2.encode(text, add_special_tokens=False).ids,
            }
        )
    path = pathlib.Path(__file__).with_suffix(".json")
    lines = ",\n".join("  " + json.dumps(entry) for entry in result)
    path.write_text("[\n" + lines + "\n]\n")


main()
