from hilum.engines.processes import Processes, find_processes


def test_alone_there_is_one_and_it_leads():
    assert find_processes(1, {}) == Processes(0, 1, 1)
    assert find_processes(1, {}).leads


def test_a_process_started_for_another_follows():
    found = find_processes(4, {"LOCAL_RANK": "2"})

    assert (found.rank, found.number, found.leads) == (2, 4, False)


def test_torchrun_says_who_is_who():
    environment = {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}

    assert find_processes(1, environment) == Processes(5, 4, 2)


def test_slurm_says_who_is_who_but_not_in_an_interactive_shell():
    environment = {"SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_PROCID": "3", "SLURM_JOB_NAME": "train"}

    assert find_processes(1, environment) == Processes(3, 2, 2)
    assert find_processes(1, {**environment, "SLURM_JOB_NAME": "bash"}) == Processes(0, 1, 1)
