"""Hugging Face's way from text to rows of tokens: `datasets.map` over `tokenizers`, wrapped and saved.

    python tests/peers/hf_tokenize.py text.txt tokenizer.json 1024 --bos 50256 --eos 50256

What MDLM's authors do for OpenWebText (kuleshov-group/mdlm, dataloader.py), which is what everybody does: one pass that
tokenizes and ends every document with EOS, one that joins documents and cuts them into rows BOS + piece + EOS; Arrow on
disk at the end. Prints one JSON line. Needs `datasets` and `tokenizers`.
"""

import argparse
import json
import os
import resource
import tempfile
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("tokenizer")
    parser.add_argument("length", type=int)
    parser.add_argument("--bos", type=int, required=True)
    parser.add_argument("--eos", type=int, required=True)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    # Imports are no part of the time.
    import datasets
    import tokenizers

    datasets.disable_progress_bars()
    tokenizer = tokenizers.Tokenizer.from_file(arguments.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # The processes share the cores; each tokenizer for itself would take all of them.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    piece = arguments.length - 2

    def tokenize(batch):
        encodings = tokenizer.encode_batch_fast(batch["text"], add_special_tokens=False)
        return {"input_ids": [encoding.ids + [arguments.eos] for encoding in encodings]}

    def wrap(batch):
        joined = [token for ids in batch["input_ids"] for token in ids]
        rows = range(0, len(joined) - piece + 1, piece)
        return {"input_ids": [[arguments.bos, *joined[row : row + piece], arguments.eos] for row in rows]}

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        data = datasets.load_dataset("text", data_files=arguments.text, split="train", cache_dir=folder)
        data = data.filter(lambda batch: [bool(text.strip()) for text in batch["text"]], batched=True)
        options = {"batched": True, "num_proc": arguments.processes}
        data = data.map(tokenize, remove_columns=["text"], **options)
        data = data.map(wrap, **options)
        data.save_to_disk(os.path.join(folder, "rows"))
        seconds = time.perf_counter() - start
        rows = len(data)
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(
        json.dumps(
            {
                "program": f"datasets {datasets.__version__}, tokenizers {tokenizers.__version__}",
                "processes": arguments.processes,
                "seconds": seconds,
                "rows": rows,
                "peak_memory_bytes": max(usage) * 1024,
            }
        )
    )


if __name__ == "__main__":
    main()
