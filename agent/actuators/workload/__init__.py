"""Starts, pauses, resumes and stops one program of this machine; which one, its own configuration alone says.

Configuration of an agent, an actuator for each program::

    actuators:
      - name: training
        kind: workload
        argv: [/opt/venv/bin/python, train.py, --resume]
        folder: /srv/training
        env: {OMP_NUM_THREADS: "4"}
        restart: on-failure      # or never, the default
        grace_s: 3               # between SIGTERM and SIGKILL
      - name: stress
        kind: workload
        argv: [/opt/wattloop/bin/wattloop-agent, burn, --profile, stress]

Commands name the actuator and one of ``start``, ``pause``, ``resume`` and ``stop``; nothing of what runs crosses the
network. The program is one absolute path with its arguments; a shell is refused, for its arguments are programs, too.

It runs as the agent's user, in a process group of its own: SIGSTOP and SIGCONT (signal(7)) pause and resume the whole
group, SIGTERM to the group and after ``grace_s`` SIGKILL end it. A *keeper* between agent and program sees to it that
nothing is left, paused or not, when the agent dies by whatever cause, and that what leaves the group ends with it.

A command holds for its lease. When that ends, the program does what it did before the first command: one that was not
running is stopped. It lives no longer than its agent.
"""

from agent.actuators.workload.actuator import WorkloadActuator
from agent.actuators.workload.config import WorkloadConfig

__all__ = ["WorkloadActuator", "WorkloadConfig"]
