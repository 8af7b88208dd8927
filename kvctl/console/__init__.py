"""The console: everything there is to see of a cluster, once a second, on a terminal.

Promises: nothing here is imported by other commands, so that `kvctl get` stays quick. Never: a number
without its age.

    sampler ─► Sample ─► record (a file)
                  └────► view.advance ─► ClusterView ─► screens        replay ─► Sample, from such a file
"""
