"""Train the real models on these ranks; the first rank writes losses, batch statistics and plans to the file given as argument."""

import json
import sys
from pathlib import Path

from model_task import CASES, build_model, losses_of, statistics_of
from tiny import ranks

with ranks() as group:
    results = {}
    for name, (config, sharding, optimizer_config) in CASES.items():
        sharded, optimizer = build_model(config, sharding=sharding, optimizer=optimizer_config, group=group)
        losses = losses_of(sharded, optimizer)
        plan = {entry.table: entry.sharding_type for entry in sharded.plan}
        results[name] = {"losses": losses, "statistics": statistics_of(sharded), "plan": plan}
    if group.rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(results))
