"""Speed, side by side in one run and given as ratios: ours, a plain implementation of the same work, peers, the machine.

`python -m benchmarks` lists what can be measured; `make bench` measures all of it. Each contender runs in a process of its own,
and they take turns round by round, so that what else the machine does in the meantime meets all of them alike.
"""
