"""The fake world: virtual clock, seeded network, a disk that loses what was not synced.

Promises: the nodes in it are the real ones, to the byte of every frame; one seed is one history, in
any process. Never: a mock of the core, a real clock, a set's order.

    World(seed)  scenario vocabulary        Workload   seeded clients and faults
      SimNode    a node and its loop        check      judges a history and what the disks hold
      Network, SimDisk, Timeline            Trace      one hash for all that happened
"""
