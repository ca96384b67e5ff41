# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""`hralign data`: simulate, import, review, label and export."""

from collections.abc import Sequence
import os
from pathlib import Path
from typing import Any, Literal

from hralign_ros.cli.options import Device, read_views
from hralign_ros.runtime.errors import DataError


def simulate(
    *, output: Path, resume: bool = False, world: Literal['tasks', 'tabletop'] = 'tasks',
    rounds: int = 3, workers: int = 0, tasks: Sequence[str] = (), family: Sequence[str] = (),
    arm: Sequence[str] = (), instructions: int | None = None, failures: bool = True,
    humans: bool = True, purpose: Literal['adaptation', 'success'] = 'adaptation',
    split: Sequence[str] = (), hz: float | None = None, hand: Path | None = None,
    split_file: Path | None = None, stills: int = 0,
) -> None:
    """
    Make paired human and robot episodes, successes and labelled failures.

    Simulates them in Meta-World and robosuite, in the virtual environment that `make sim` makes.

    :param output: data set to write
    :param world: tasks: about fifty of Meta-World and robosuite; tabletop: hundreds of
        instructions on one table, each with wrong objects and places beside the right ones
    :param rounds: about 750 episodes each, over all tasks; about 6000 on the table
    :param workers: processes; 0: as many as there are cores
    :param tasks: only these; on the table, instructions by id or words
    :param family: only these of tabletop, such as into, beside, drawer
    :param arm: only these of tabletop: panda, ur5e, sawyer, xarm7, iiwa
    :param instructions: of tabletop, train on so many; those held out are made all the same
    :param failures: without them, there are successes only, which is what adaptation needs
    :param humans: without them, there are robots only, which is what a success head is trained on
    :param purpose: of tasks: pairs of successes, or mostly failures, recorded at 5 Hz
    :param split: make episodes of these splits only
    :param resume: complete the data set in --output, or add to it
    :param hz: frames a second; default: 5 for success and on the table, 3 at most for adaptation
    :param stills: of tabletop, so many of these too: the two ends of an attempt without its
        motion, which are made faster and tell of everything that one could have asked for; in
        sets of 16 of one instruction, so that few stills are of few instructions
    :param hand: glTF file of the hand
    """
    from hralign_ros.simulation.simulate import simulate
    from hralign_ros.simulation.tabletop import simulate_tabletop
    import metaworld  # noqa: F401  # missing, it is named before any work is done
    import robosuite  # noqa: F401

    if world == 'tabletop':
        if purpose != 'adaptation':
            raise DataError('--purpose is of --world tasks; attempts on the table serve both')
        print(simulate_tabletop(
            output, rounds=rounds, workers=workers or os.cpu_count() or 1, tasks=tuple(tasks),
            families=tuple(family), arms=tuple(arm), count=instructions, failures=failures,
            only=tuple(split), hz=hz, humans=humans, hand=hand, splits=split_file, resume=resume,
            stills=stills))
        return
    if family or arm or instructions is not None or stills:
        raise DataError('--family, --arm, --instructions and --stills are of --world tabletop')
    print(simulate(
        output, rounds=rounds, workers=workers or os.cpu_count() or 1, tasks=tuple(tasks),
        failures=failures, humans=humans, purpose=purpose, only=tuple(split), hz=hz, hand=hand,
        splits=split_file, resume=resume))


def instructions(
    *, split: Sequence[str] = (), family: Sequence[str] = (), paraphrases: bool = False,
    split_file: Path | None = None,
) -> None:
    """
    Print the instructions of the simulated table, and how many there are; needs no simulator.

    :param split: only those held out for these, or train for those that are not
    :param family: only these, such as into, beside, drawer
    :param paraphrases: print these too
    """
    from hralign_ros.simulation.tabletop_plan import list_instructions, read_tabletop_splits

    for line in list_instructions(read_tabletop_splits(split_file), only=tuple(split),
                                  families=tuple(family), paraphrases=paraphrases):
        print(line)


def simulate_lab(
    *, output: Path, resume: bool = False, lab: str = 'lab-1', arm: str = 'kinova3',
    tasks: Sequence[str] = (), succeeding: int = 10, failing: int = 10, first_seed: int = 0,
    workers: int = 0, hand: Path | None = None,
) -> None:
    """
    Make attempts in one simulated lab, as a user of a new robot would record them.

    Arm, place and cameras are in no training data. Two of the five tasks are the shipped bundle's.
    Failures take as long as successes. Runs in the virtual environment that `make sim` makes.

    :param output: data set to write
    :param lab: lab-N; lab-N@10deg and lab-N@10cm move its camera, lab-N@light and lab-N@table
        change one thing
    :param arm: kinova3 or iiwa
    :param tasks: only these of lift, pick-can, cube-left, cube-beside, cube-push
    :param succeeding: attempts of each task
    :param failing: likewise
    :param first_seed: of both; sets whose seeds differ have no attempt in common
    :param workers: processes; 0: as many as there are cores
    :param resume: complete the data set in --output, or add to it
    :param hand: glTF file of the hand
    """
    from hralign_ros.simulation.lab import simulate_lab
    import robosuite  # noqa: F401  # missing, it is named before any work is done

    print(simulate_lab(
        output, lab=lab, arm=arm, tasks=tuple(tasks), successes=succeeding, failures=failing,
        first_seed=first_seed, workers=workers or os.cpu_count() or 1, hand=hand, resume=resume))


def simulate_demonstrations(
    *, output: Path, resume: bool = False, tasks: Sequence[str] = ('lift', 'pick-can'),
    arm: str = 'panda', lab: str = 'lab-1', episodes: int = 20, failing: int = 0,
    first_seed: int = 0,
) -> None:
    """
    Record demonstrations of a scripted expert in one simulated lab, to train a policy on.

    Its hand trembles, and the actions that are written down are what it meant to do. Runs in the
    virtual environment that `make sim` makes.

    :param output: data set to write
    :param tasks: of lift and pick-can
    :param arm: panda, ur5e, kinova3 or iiwa
    :param lab: lab-N, see simulate-lab
    :param episodes: demonstrations of each task
    :param failing: attempts of each task beside them that fail, in four ways
    :param first_seed: seeds go up from there
    :param resume: complete the data set in --output, or add to it
    """
    from hralign_ros.simulation.demonstrate import simulate_demonstrations
    import robosuite  # noqa: F401  # missing, it is named before any work is done

    print(simulate_demonstrations(
        output, tasks=tuple(tasks), arm=arm, lab=lab, episodes=episodes, failing=failing,
        first_seed=first_seed, resume=resume))


def import_rh20t(
    source: Path, /, *, output: Path | None = None, split_file: Path | None = None,
    task_descriptions: Path | None = None, commercial_only: bool = False,
    strict_success: bool = False, params_file: Path | None = None, node: str = '/encoder',
) -> None:
    """
    Write the manifest of RH20T.

    :param source: its root
    :param output: folder of the manifest: the source (default) or one above it
    :param task_descriptions: task_description.json; default: the one in the root
    :param commercial_only: leave out scenes that are licensed for research only
    :param strict_success: a success is rated 5 or better, not 2
    """
    _import('rh20t', source, output, split_file, params_file, node,
            task_descriptions=task_descriptions, commercial_only=commercial_only,
            strict_success=strict_success)


def import_folders(
    source: Path, /, *, output: Path | None = None, split_file: Path | None = None,
    params_file: Path | None = None, node: str = '/encoder',
) -> None:
    """
    Write the manifest of a folder of videos.

    :param source: its root
    :param output: folder of the manifest: the source (default) or one above it
    """
    _import('folders', source, output, split_file, params_file, node)


def import_lerobot(
    source: Path, /, *, views: Sequence[str], output: Path | None = None,
    split_file: Path | None = None, params_file: Path | None = None, node: str = '/encoder',
) -> None:
    """
    Write the manifest of a LeRobot data set, v3.0, v2.1 or v2.0.

    :param source: its root
    :param views: VIEW=CAMERA: which camera is which view
    :param output: folder of the manifest: the source (default) or one above it
    """
    chosen = read_views(views, 'third_person=observation.images.front')
    _import('lerobot', source, output, split_file, params_file, node,
            views={camera: view for view, camera in chosen.items()})


def import_rosbag(
    source: Path, /, *, output: Path, views: Sequence[str] = (), instruction: str = '',
    robot: str = 'robot', proprio: Sequence[str] = (), actions: Sequence[str] = (),
    cut: Literal['bag', 'messages'] = 'bag', label_topic: str = '', hz: float | None = None,
    stamp_source: Literal['header', 'arrival'] = 'header', quality: int = 0,
    split_file: Path | None = None, params_file: Path | None = None, node: str = '/encoder',
) -> None:
    """
    Make a data set of rosbag2 recordings, or add them to one; ROS is not needed.

    Reads MCAP and sqlite3, compressed or not, whole or cut off; images become videos without loss.
    labels.csv in the folder of bags says how episodes ended. An import that was stopped goes on
    where it was, and later bags are added, when it is started again.

    :param source: folder with bags in it, or a bag
    :param output: folder of the data set
    :param views: VIEW=TOPIC: which images are which view; default: the topics with third_person
        and wrist in their names, as the recorder node has them
    :param instruction: what is done, as one says it; default: what labels.csv (task_text) or the
        messages of the encoder in the bag say
    :param robot: what the arm is called
    :param proprio: topics of the robot's own state, TOPIC or TOPIC:FIELD; default: joint states
    :param actions: topics of commands, TOPIC or TOPIC:FIELD
    :param cut: a bag is an episode, or it holds as many as the encoder's messages in it say
    :param label_topic: a message on this topic ends an episode: a String (success, failure or
        discard; start begins the next one) or a Bool
    :param hz: images a second of each view, at most; default: all
    :param stamp_source: when an image was taken: its header, or its time of arrival
    :param quality: 0: images are kept as they are; up to 51: of images that are not JPEG, smaller
        videos (H.264, constant rate factor)
    """
    from hralign_ros.data.bag_conversion import BagOptions

    chosen = BagOptions(
        views=read_views(views, 'wrist=/camera/wrist/color/image_raw'), proprio=tuple(proprio),
        actions=tuple(actions), cut=cut, label_topic=label_topic, hz=hz,
        stamp_source=stamp_source, quality=quality)
    _import('rosbag', source, output, split_file, params_file, node, options=chosen,
            instruction=instruction, embodiment=robot)


def review(
    data: Path, /, *, bundle: Path | None = None, name: str = '', port: int = 0,
) -> None:
    """
    Label episodes on a local web page: success, failure or discard, and the time of success.

    Prints the address of the page, which only this computer reaches, and serves it until Ctrl-C.
    Labels are written into the manifest, and into the labels.csv that an import reads.

    :param bundle: shows its probability over time and proposes times of success; default: none
    :param name: of who labels; default: the login name
    :param port: of the page; default: any that is free
    """
    from hralign_ros.review.server import serve

    serve(data, name=name, bundle=bundle, port=port)


def label(
    source: Path, /, *, views: Sequence[str] = (), bundle: Path | None = None, hz: float = 5.0,
    stamp: bool = False, output: Path | None = None, alpha: float | None = None,
    allow_unknown_tasks: bool = False, device: Device = 'auto', workers: int = 0,
    features: Path | None = None, params_file: Path | None = None, node: str = '/encoder',
) -> None:
    """
    Write progress and success of every frame of a LeRobot data set, as its RA-BC reads them.

    Plays the episodes to the runtime that is in the node and writes hralign_progress.parquet into
    the data set. What was stopped goes on where it was when it is started again. Needs no torch:
    it runs in LeRobot's own environment, too.

    :param source: its root; v3.0, v2.1 or v2.0
    :param views: VIEW=CAMERA: which camera is which view; default: cameras that are called as a
        view of the bundle, such as observation.images.wrist
    :param hz: frames of each episode that are played a second; frames between are interpolated
    :param stamp: write next.success too, with the bundle as its source; labels of your own are
        never written over
    :param output: file of progress, a new one or one of this command; default:
        hralign_progress.parquet in the data set
    :param alpha: false-alarm rate that success is decided at; default: as the node does
    :param allow_unknown_tasks: decide on tasks that the bundle does not know, too
    :param workers: processes; default: one for each core
    :param features: folder of what is computed; default: one of the user's cache
    """
    from hralign_ros.data.geometry import read_geometry
    from hralign_ros.data.lerobot_labels import label_lerobot, LabelOptions
    from hralign_ros.runtime import default_bundle

    chosen = read_views(views, 'third_person=observation.images.front')
    label_lerobot(
        source, bundle or default_bundle(),
        views={camera: view for view, camera in chosen.items()},
        options=LabelOptions(hz, alpha, allow_unknown_tasks), stamp=stamp, output=output,
        folder=features, provider=device, workers=workers,
        geometry=read_geometry(params_file, node) if params_file else None)


def export_lerobot(
    *, data: Path, output: Path, hz: float | None = None, split: Sequence[str] = (),
) -> None:
    """
    Write the robot episodes of a data set as a LeRobot data set, v3.0.

    Success becomes next.success and the end of an episode next.done; robot state and commands
    become observation.state and action.

    :param output: new folder
    :param hz: rate of the videos, a whole number; default: that of the episodes
    """
    from hralign_ros.data.lerobot_export import export_lerobot
    from hralign_ros.data.manifest import read_manifest

    chosen = read_manifest(data)
    export_lerobot(chosen.of_split(*split) if split else chosen, output, fps=hz)


def export_rerun(source: Path, /, *, output: Path) -> None:
    """
    Write bags as recordings for rerun: images, attention, probability, decisions, labels.

    Each bag becomes one file, which `rerun FILE.rrd` opens with a layout of its own. Needs
    rerun-sdk, which needs Python 3.11 and numpy 2; ROS is not needed.

    :param source: folder with bags in it, or a bag
    :param output: folder of the files
    """
    from hralign_ros.data.rerun_export import export_rerun

    export_rerun(source, output)


def _import(
    kind: str, source: Path, output: Path | None, split_file: Path | None,
    params_file: Path | None, node: str, **chosen: Any,
) -> None:
    from hralign_ros.data.geometry import read_geometry
    from hralign_ros.data.importing import import_data

    print(import_data(
        kind, source, output, splits=split_file,
        geometry=read_geometry(params_file, node) if params_file else None, **chosen))
