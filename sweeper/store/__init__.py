"""`SWEEPER_STORE`: the files of studies in a bucket, of which each machine's home is only a cache.

    studies/digits/begun.json              names the prefix below it, which is another after `sweeper rm`
    studies/digits/3f0c9a52b1de/
      trials/0007/files/SHA256             whole files, under their digests; never changed
      trials/0007/index-00000012.json      which of them are the trial's now: the highest number counts, and is put last
      winner-2/                            a package, kept in the same way
      pretrained/photos-v3/                a registered model that trials begin from, likewise
      pretrained.json                      which versions of those the study began with

Only this package imports fsspec.
"""
