#!/bin/sh
# Usage: unshare --mount --pid --fork --uts --ipc --net --cgroup --kill-child sh machine.sh SCRATCH PATH…
# Becomes a machine of its own: a copy-on-write view of this one's files, no network but a loopback of its own, and
# systemd as its first process. PATHs are shown in it, read-only, even where /tmp or another file system holds them.
set -eu
scratch=$1
shift

mount --make-rprivate /
mkdir "$scratch/shown"
index=0
for path; do
    index=$((index + 1))
    mkdir "$scratch/shown/$index"
    mount --bind "$path" "$scratch/shown/$index"
done
mkdir "$scratch/memory"
mount -t tmpfs -o mode=0755 machine "$scratch/memory"
mkdir "$scratch/memory/changes" "$scratch/memory/work" "$scratch/memory/root"
root=$scratch/memory/root
mount -t overlay -o "lowerdir=/,upperdir=$scratch/memory/changes,workdir=$scratch/memory/work" machine "$root"

# What systemd wants of a container: https://systemd.io/CONTAINER_INTERFACE
mount -t proc proc "$root/proc"
mount --bind -o ro "$root/proc/sys" "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=0755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"
mount -t tmpfs -o mode=0755 dev "$root/dev"
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
index=0
for path; do
    index=$((index + 1))
    mkdir -p "$root$path"
    mount --bind -o ro "$scratch/shown/$index" "$root$path"
done

# None of this machine's own services: only the journal, and targets for ours to refer to.
mount -t tmpfs -o mode=0755 units "$root/etc/systemd/system"
units=$root/run/machine
mkdir "$units"
for target in sysinit basic sockets multi-user shutdown network-online time-sync; do
    printf '[Unit]\nDefaultDependencies=no\n' >"$units/$target.target"
done
printf '[Unit]\nWants=basic.target systemd-journald.socket systemd-journald.service\n' >"$units/multi-user.target"
for unit in systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket; do
    cp "/lib/systemd/system/$unit" "$units"
done

cd "$root"
pivot_root . mnt
umount -l /mnt
exec env -i container=wattloop PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    SYSTEMD_UNIT_PATH=/run/machine:/etc/systemd/system:/run/systemd/transient \
    /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal
