"""One engine in a process of its own, for what needs several processes: prints the ids of all answers, and lengths."""

import json
import sys
from pathlib import Path

from both import engine, ids, served
from requests_of import requests_of

if __name__ == "__main__":
    kind, folder, strategy, options = sys.argv[1:]
    llm = engine(Path(folder), json.loads(strategy), **json.loads(options))
    outputs = served(llm, requests_of(kind))
    print("ANSWERS", json.dumps([ids(outputs), [len(output.prompt_token_ids) for output in outputs]]))
