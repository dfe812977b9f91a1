"""Train every case on these ranks; the first rank writes losses, digests of the weights and plans to the file given as argument."""

import json
import sys
from pathlib import Path

from cases import CASES
from tiny import build, ranks, train

from trainer.checkpoint import state_sha256

with ranks() as group:
    results = {}
    for name, (sharding, optimizer_config) in CASES.items():
        sharded, optimizer = build(sharding, optimizer_config, group)
        initial = state_sha256(sharded.module)
        losses = train(sharded, optimizer, optimizer_config)
        drawn = state_sha256(build(sharding, optimizer_config, group, table_device="meta")[0].module)
        plan = {entry.table: (entry.sharding_type, len(entry.shards)) for entry in sharded.plan}
        results[name] = {"losses": losses, "initial": initial, "drawn": drawn, "final": state_sha256(sharded.module), "plan": plan}
    if group.rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(results))
