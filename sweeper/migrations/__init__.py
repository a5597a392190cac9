"""How the tables of the catalog came to be what they are: Alembic's steps, one file each in `versions`.

A step is final once it is released. A change to `sweeper.catalog.tables` needs a new one, and `HEAD` in
`sweeper.catalog.versions` its number; the tests compare what the steps make with what the tables say.
"""
