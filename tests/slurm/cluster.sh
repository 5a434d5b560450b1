#!/usr/bin/env bash
# A real SLURM on this one machine, for tests: `cluster.sh start` and `cluster.sh stop`, as root.
#
# Debian's munge, slurmctld and slurmd on loopback, with two pretend GPUs. Exits with 75 and one line where
# it cannot be had: not root, no Debian packages within reach, or a SLURM that is already someone's.
set -euo pipefail

STATE=/run/colatent-slurm # pids, logs and state of this cluster alone
CONF=/etc/slurm # no other place is found by all commands
PORTS=(16817 16818)

cannot() {
    echo "no SLURM for the tests: $1"
    exit 75
}

install_packages() {
    command -v slurmctld slurmd sbatch munged > /dev/null && return
    command -v apt-get > /dev/null || cannot "it needs Debian's packages, and there is no apt-get"
    local options=(-qq -o Acquire::Retries=0 -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10)
    export DEBIAN_FRONTEND=noninteractive
    {
        timeout 60 apt-get "${options[@]}" update
        timeout 240 apt-get "${options[@]}" install --yes --no-install-recommends \
            munge slurmctld slurmd slurm-client
    } > "$STATE/apt.log" 2>&1 || cannot "Debian's packages cannot be installed ($(tail -n 1 "$STATE/apt.log"))"
}

write_conf() {
    ln -sf /dev/zero "$STATE/pretend-gpu0" # SLURM wants character devices
    ln -sf /dev/null "$STATE/pretend-gpu1"
    # a ninth of the memory is left to what else runs here
    local memory=$(($(awk '/MemTotal/ {print $2}' /proc/meminfo) / 1024 * 8 / 9))
    mkdir -p "$CONF"
    echo "Name=gpu File=$STATE/pretend-gpu[0-1]" > "$CONF/gres.conf"
    cat > "$CONF/slurm.conf" << CONF
# Written by tests/slurm/cluster.sh of colatent
ClusterName=colatent-tests
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmctldPort=${PORTS[0]}
SlurmdPort=${PORTS[1]}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
StateSaveLocation=$STATE/ctld
SlurmdSpoolDir=$STATE/slurmd
SlurmctldPidFile=$STATE/slurmctld.pid
SlurmdPidFile=$STATE/slurmd.pid
SlurmctldLogFile=$STATE/slurmctld.log
SlurmdLogFile=$STATE/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MinJobAge=3600
KillWait=10
GresTypes=gpu
NodeName=localhost NodeAddr=127.0.0.1 CPUs=$(getconf _NPROCESSORS_ONLN) RealMemory=$memory Gres=gpu:2 State=UNKNOWN
PartitionName=tests Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
}

start_munge() {
    munge --no-input > /dev/null 2>&1 && return # this machine's own runs, and is left alone
    mkdir -p /run/munge
    chown munge: /run/munge "$STATE/munge"
    runuser -u munge -- munged --force --log-file="$STATE/munge/munged.log" \
        --pid-file="$STATE/munge/munged.pid" --seed-file="$STATE/munge/seed" || cannot "munge does not start"
}

start() {
    [ "$(id -u)" = 0 ] || cannot "only root can start it"
    if [ -e "$CONF/slurm.conf" ] && ! grep -q "Written by tests/slurm/cluster.sh" "$CONF/slurm.conf"; then
        cannot "this machine has one of its own ($CONF/slurm.conf)"
    fi
    stop
    mkdir -p "$STATE"/{ctld,slurmd,munge}
    chmod 755 "$STATE"
    install_packages
    write_conf
    start_munge
    slurmctld
    slurmd
    for _ in $(seq 50); do
        [ "$(sinfo --noheader --format %T 2> /dev/null)" = idle ] && echo "SLURM is up, with two pretend GPUs" && return
        sleep 0.2
    done
    tail -n 5 "$STATE/slurmctld.log" "$STATE/slurmd.log"
    stop
    cannot "the node did not become idle"
}

end_jobs() {
    [ -s "$STATE/slurmctld.pid" ] || return 0
    squeue --noheader --format %i | xargs --no-run-if-empty scancel
    for _ in $(seq 200); do
        [ -z "$(squeue --noheader)" ] && return
        sleep 0.1
    done
}

stop() {
    end_jobs || true # it may be half up
    for name in slurmd slurmctld munge/munged; do
        if [ -s "$STATE/$name.pid" ]; then
            local pid
            pid=$(cat "$STATE/$name.pid")
            # the pid may long be another program's
            if grep -q "${name##*/}" "/proc/$pid/comm" 2> /dev/null; then
                kill "$pid"
                for _ in $(seq 100); do [ -e "/proc/$pid" ] && sleep 0.1 || break; done
            fi
        fi
    done
    grep -qs "Written by tests/slurm/cluster.sh" "$CONF/slurm.conf" && rm -f "$CONF/slurm.conf" "$CONF/gres.conf"
    rm -rf "$STATE"
}

case "${1:-}" in
    start | stop) "$1" ;;
    *) echo "usage: $0 start|stop" && exit 2 ;;
esac
