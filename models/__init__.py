"""What the facts mean: pure functions and typed records, no I/O.

Read in this order: `facts` (what arrives), `sessions` and `touches` (what can earn
credit), `identity` (whose it is), `deals` (what it earned), `attribution` (who earned
it). `visitors`, `members` and `accounts` are the three incremental steps of the lanes;
`recompute` (with `batch`) is the same in one plain batch, which audits them.
"""
