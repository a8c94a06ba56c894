"""Writes detokenizers.json: what the published detokenizers make of some texts.

    python detokenizers.py DATALOADER.py > detokenizers.json

DATALOADER.py is `dataloader.py` of kuleshov-group/mdlm (c112c52 or later; Apache 2.0), whose functions are run as they
are. The texts were written for this file.
"""

import ast
import json
import re
import sys

FUNCTIONS = {
    "ptb": "ptb_detokenizer",
    "wikitext": "wt_detokenizer",
    "lm1b": "lm1b_detokenizer",
    "lambada": "lambada_detokenizer",
    "scientific_papers": "scientific_papers_detokenizer",
}

TEXTS = [
    "",
    " ",
    "plain text stays",
    " = Night Train = \n",
    " = = Early work = = \n",
    " = = = 1991 = = = \n",
    " = = = = x = = = = =\n",
    " a well @-@ known 1 @,@ 250 @.@ 5 km road @-@\n",
    " They called O 'Reilly 's remarks , and K 'awiil 's ' own ' words , odd .\n",
    " he goes ' I want my child back ' . \n",
    " ' C ' and ' D ' - from ( A ( nested ) b ) [ c ] { d } \" e \" \" f\n",
    "the players ' union ; the boss ' ; a ' b",
    " at 21 ° C or 50 ° N 11 ° E \n lines \n follow",
    " N N N to $ N billion , # N and N",
    "the <unk> 's N\\/N and does n't",
    "he 'd say they 're 's in '80s",
    "See http : / / a.org / b . And https : / / c .",
    "U.S. . a . b . c .",
    "the end .\n",
    "what ? why ?\n",
    "go ! now !",
    "\" a b \" \" c\" \"d \" ' e f ' ( g ) ( h ( i ) ) [ j ] [  ] ( )",
    "\"  \" \" \" \"   \"",
    "$ 5 , £ 6 : 7 ; 8 / 9",
    "\u201c wait , \u201d he said\u00a0\n",
    "\x1c odd \u3000 space \x1f",
    "(\u00a0x\u2003) and [\n\ty ] /' 5/",
    "caf\u00e9 . na\u00efve\u0301 . \u4e09 . x_y . \u00bd . 5th .",
    "it is 'quoted ' and ' \u00e9t\u00e9 '",
    "we find @xmath0 , see fig . [ fig1 ] .\nmodels .\nit is @xcite .",
    "{ a { b } c } \"unclosed ( too [ and",
]


def main(path):
    tree = ast.parse(open(path, encoding="utf-8").read())
    wanted = set(FUNCTIONS.values())
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in wanted]
    space = {"re": re}
    exec(compile(tree, path, "exec"), space)
    cases = [
        {"rules": rules, "text": text, "published": space[function](text)}
        for rules, function in FUNCTIONS.items()
        for text in TEXTS
    ]
    print("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]")


main(sys.argv[1])
