# Which core each interrupt gets, now and after the next start of the host. Part of settings.bash.
# shellcheck shell=bash
#
# The queues of network cards are spread over the shards' cores, all cores without --cores: they are the gateway's own
# work, and any queue has packets for any shard. With --cores, whatever else interrupts those goes to the other cores.
# Interrupts that the kernel manages itself stay where they are.

boot_script=/usr/local/lib/ringgate/interrupts
boot_unit=ringgate-interrupts.service

interrupt_settings() {
    local online=() dealt=() queues=" " places="" number name nth cpu
    mapfile -t online < <(online_cpus)
    if [ ${#online[@]} -eq 0 ]; then
        echo "interrupts: left alone; /sys/devices/system/cpu/online tells no cores"
        return
    fi
    if grep -qsx irqbalance "$root"/proc/[0-9]*/comm; then
        echo "interrupts: irqbalance runs and would move them back; end it first (systemctl disable --now irqbalance)"
        return
    fi
    dealt=("${online[@]}")
    [ -z "$cores" ] || mapfile -t dealt < <(expand "$cores")
    while read -r number name nth cpu; do
        queues+="$number "
        set_interrupt "$number" "$name" "$nth" "$cpu" "queues in turn over the cores"
    done < <(deal_queues)
    [ "$queues" != " " ] || echo "interrupts: no network card shows any"
    [ -z "$cores" ] || move_others
    [ -z "$places" ] || keep_after_restart
}

# Lines "number name nth core" for the queues of all cards, a core of its own for each interrupt while there are enough.
# Beyond that, what receives and what sends of a queue share its core: dealt out in turn, all that receives of a card
# with two interrupts a queue would land on every second core.
deal_queues() {
    local card numbers names kind base=0 index most nths
    local -A next
    for card in "$root"/sys/class/net/*/device; do
        [ -e "$card" ] || continue
        numbers=() names=() nths=() next=() most=0
        while read -r number; do
            read -r name nth < <(all_interrupts | awk -v number="$number" '$1 == number { print $2, $3 }') || continue
            [[ ! $name =~ (config|event|async|control|misc|mgmnt) ]] || continue
            numbers+=("$number") names+=("$name") nths+=("$nth")
        done < <(card_interrupts "$card")
        for index in "${!numbers[@]}"; do
            name=${names[index]}
            # "eth0-rx-3" is of the kind "eth0-rx-", "mlx5_comp3@pci:0000:3b:00.0" of the kind "mlx5_comp".
            kind=${name%%@*}
            while [[ $kind == *[0-9] ]]; do kind=${kind%?}; done
            [ ${#numbers[@]} -gt ${#dealt[@]} ] || kind=any
            : "${next[-$kind]:=0}"
            echo "${numbers[index]} $name ${nths[index]} ${dealt[(base + next[-$kind]) % ${#dealt[@]}]}"
            next[-$kind]=$((next[-$kind] + 1))
            most=$((next[-$kind] > most ? next[-$kind] : most))
        done
        base=$((base + most))
    done
}

# What could come to the shards' cores is told to stay on the others.
move_others() {
    local elsewhere now
    elsewhere=$(comm -13 <(expand "$cores" | sort) <(printf '%s\n' "${online[@]}" | sort) | sort -n | paste -sd ,)
    if [ -z "$elsewhere" ]; then
        echo "interrupts of other devices: left alone; no core is left for them"
        return
    fi
    while read -r number name nth; do
        [[ $queues != *" $number "* && -r $root/proc/irq/$number/smp_affinity_list ]] || continue
        now=$(<"$root/proc/irq/$number/smp_affinity_list")
        if is_recorded "$number" "$name" "$nth" ||
            [ -n "$(comm -12 <(expand "$now" | sort) <(expand "$cores" | sort))" ]; then
            set_interrupt "$number" "$name" "$nth" "$elsewhere" "not on the shards' cores"
        fi
    done < <(all_interrupts)
}

# set_interrupt NUMBER NAME NTH CORES WHY: NTH counts those that share the name.
set_interrupt() {
    local number=$1 name=$2 nth=$3 cpus=$4 why=$5 path now
    path=$root/proc/irq/$number/smp_affinity_list
    [ -r "$path" ] || return 0
    now=$(<"$path")
    if [ "$(expand "$now")" = "$(expand "$cpus")" ]; then
        echo "interrupt $number ($name): on core $cpus"
        # What the kernel itself has put there needs nobody to do so after a restart.
        ! is_marked_read_only "$path" || return 0
    elif is_marked_read_only "$path"; then
        echo "interrupt $number ($name): left alone; the kernel manages it itself"
        return
    else
        echo "interrupt $number ($name): cores $now -> $cpus ($why)"
        if ! change irq "$name #$nth" "$now" "$cpus" "$path"; then
            # On older kernels the file looks as if it could be written.
            echo "interrupt $number ($name): left alone; the kernel manages it itself"
            return
        fi
    fi
    places+="place $(printf %q "$name") $nth $cpus"$'\n'
}

# Written out, and not this script called again: so it says what it does, and needs no copy of the repository.
keep_after_restart() {
    write_file "$boot_script" "#!/usr/bin/env bash
# Written by ringgate's tuning/apply; tuning/revert removes it.
# Interrupts have other numbers after each start, the same names, and the same order among those that share a name.
failed=0
# place NAME NTH CORES
place() {
    local number
    number=\$(awk -v name=\"\$1\" -v nth=\"\$2\" \\
        '\$1 ~ /^[0-9]+:\$/ && \$NF == name && ++count == nth { print \$1 + 0 }' /proc/interrupts)
    [ -z \"\$number\" ] || echo \"\$3\" >\"/proc/irq/\$number/smp_affinity_list\" || failed=1
}
${places}exit \$failed
" "the same after a restart"
    # Most drivers ask for their interrupts when the card comes up.
    write_file "/etc/systemd/system/$boot_unit" "# Written by ringgate's tuning/apply; tuning/revert removes it.
[Unit]
Description=Cores for interrupts, as ringgate's tuning/apply dealt them out
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart=/usr/bin/env bash $boot_script

[Install]
WantedBy=multi-user.target
" "runs it when the network is up"
    link_file "/etc/systemd/system/multi-user.target.wants/$boot_unit" "../$boot_unit" "enables it"
}

# Lines "number name nth", where nth counts those of one name; interrupts without a number belong to the cores themselves.
all_interrupts() {
    [ -r "$root/proc/interrupts" ] || return 0
    awk '$1 ~ /^[0-9]+:$/ { print $1 + 0, $NF, ++count[$NF] }' "$root/proc/interrupts"
}

# Records of an earlier apply say "38 eth0-rx-0" instead of "eth0-rx-0 #1".
is_recorded() {
    recorded irq "$2 #$3" || recorded irq "$1 $2"
} >/dev/null

# find_interrupt RECORDED: "number name" of what is on record so. After a restart it may have another number, or be gone,
# and its own may be another's: so a number counts only together with its name, but where it is all that was recorded.
find_interrupt() {
    all_interrupts | awk -v which="$1" '
        BEGIN { split(which, earlier, " ") }
        $2 " #" $3 == which || $1 " " $2 == which || $1 == which { same = $1 " " $2 }
        $2 == earlier[2] { others++; other = $1 " " $2 }
        END { print (same == "" && others == 1 ? other : same) }'
}

# A virtio device hangs below the PCI device that has the interrupts.
card_interrupts() {
    local folder
    for folder in "$1/msi_irqs" "$1/../msi_irqs"; do
        if [ -d "$folder" ]; then
            ls "$folder" | sort -n
            return
        fi
    done
}

online_cpus() {
    [ ! -r "$root/sys/devices/system/cpu/online" ] || expand "$(<"$root/sys/devices/system/cpu/online")"
}

# expand LIST: "0,2-3" as a line for each core.
expand() {
    local part parts
    IFS=, read -r -a parts <<<"$1"
    for part in "${parts[@]}"; do
        seq "${part%-*}" "${part#*-}"
    done
}
