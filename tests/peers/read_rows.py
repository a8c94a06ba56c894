"""Opens row files as any other program would, with pyarrow and with DuckDB, and prints what they hold as one JSON line.

    python tests/peers/read_rows.py rows/train/00000.arrow rows/train/00000.parquet

Needs `pyarrow` and `duckdb`. tests/it/readers.rs compares the answer with what was written.
"""

import json
import sys

import duckdb
import pyarrow
import pyarrow.ipc
import pyarrow.parquet


def with_pyarrow(path):
    if path.endswith(".arrow"):
        table = pyarrow.ipc.open_file(pyarrow.memory_map(path)).read_all()
    else:
        table = pyarrow.parquet.read_table(path)
    metadata = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    columns = {}
    for name in table.column_names:
        column = table.column(name)
        columns[name] = {
            "type": f"{column.type.list_size} x {column.type.value_type}",
            "values": column.to_pylist(),
        }
    metadata = {key: value for key, value in metadata.items() if key.startswith("mdlm.")}
    return table, {"rows": table.num_rows, "columns": columns, "metadata": metadata}


def with_duckdb(path, table):
    # DuckDB reads Parquet itself, and Arrow from memory as pyarrow maps it.
    rows = table if path.endswith(".arrow") else duckdb.read_parquet(path)
    names = [column[0] for column in duckdb.sql("describe from rows").fetchall()]
    columns = {}
    for name in names:
        kind = duckdb.sql(f"select distinct typeof({name}) from rows").fetchall()[0][0]
        values = [list(row[0]) for row in duckdb.sql(f"select {name} from rows").fetchall()]
        columns[name] = {"type": kind, "values": values}
    count, tokens = duckdb.sql("select count(*), sum(len(input_ids)) from rows").fetchall()[0]
    return {"rows": count, "tokens": int(tokens), "columns": columns}


answers = []
for path in sys.argv[1:]:
    table, seen = with_pyarrow(path)
    answers.append({"pyarrow": seen, "duckdb": with_duckdb(path, table)})
print(json.dumps(answers))
