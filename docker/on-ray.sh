#!/bin/sh
# The way in of the service `sweeper`. Who gives work to a Ray cluster must be a node of it: at the head's port alone,
# nobody is answered. So for the commands that train, this container joins, with no CPU to offer, until it ends.
set -eu
case " $* " in
*" --detach "* | *" --in-process "* | *" --help "*) ;;
" start "* | " extend "* | " retry "* | " resume "*)
    ray start --address="$RAY_ADDRESS" --num-cpus=0 --num-gpus=0 --object-store-memory=134217728 >/tmp/join.log 2>&1 || {
        tail -n 5 /tmp/join.log >&2
        echo "error: RAY_ADDRESS=$RAY_ADDRESS: this container could not join that Ray; look at: docker compose ps" >&2
        exit 1
    }
    ;;
esac
exec sweeper "$@"
