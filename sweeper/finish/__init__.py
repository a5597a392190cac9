"""What is tried after the sweep, and how the winner is found: trunks, soups, ensembles, longer training, a student.

Each thing that is made is a trial of its own, so that it survives what any trial survives. What is to be made next
follows from the catalog alone.
"""
