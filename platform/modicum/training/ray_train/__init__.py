"""A computation on a worker group of Ray Train, which stays up from start to end.

    trial's process  -- owns -->  group host  -- runs Ray Train, which owns -->  workers
           ^--------- values ---------'    ^----- values of the first worker -----'

Each process ends with its owner, so a killed trial leaves none behind. The workers' placement group
would stay reserved; the placement guard removes it.
"""
