# Copyright 2026 hralign_ros maintainers
# SPDX-License-Identifier: Apache-2.0

"""Signed bundles, the SROS2 policy and security that is asked for, on real node processes."""

from pathlib import Path
import shutil
from xml.etree import ElementTree

from lifecycle_msgs.msg import Transition
import pytest
from support.harness import Harness, ROOT
from support.policy_stage import PROPRIO, write_robot_policy
from support.tiny_bundle import robot_bundle

POLICY = ROOT / 'config/sros2_policy.xml'
Grants = dict[tuple[str, str], set[str]]
# What an action consists of.
ACTION = {('topics', 'publish'): ('feedback', 'status'),
          ('services', 'reply'): ('send_goal', 'cancel_goal', 'get_result')}
MIRRORS = ('embedding_array', 'probability', 'succeeded', 'failed', 'reward', 'reset', 'task')


# What the policy says is what the node does.

def _policy(node: str, namespace: str = '/') -> Grants:
    """Read what the policy file grants to a node: (kind, access) -> full names."""
    root = ElementTree.parse(POLICY).getroot()
    assert (root.tag, root.get('version')) == ('policy', '0.2.0')
    enclaves = {one.get('path'): one for one in root.findall('enclaves/enclave')}
    assert set(enclaves) == {'/hralign/encoder', '/hralign/policy'}
    enclave = enclaves[f'/hralign/{node}']
    (profile,) = enclave.findall('profiles/profile')
    assert (profile.get('ns'), profile.get('node')) == (namespace, node)
    granted: Grants = {}
    for group in profile:
        ((access, verdict),) = group.items()
        assert verdict == 'ALLOW' and group.tag in ('topics', 'services', 'actions')
        for entry in group:
            assert entry.tag == group.tag[:-1] and entry.text
            base = namespace if namespace.endswith('/') else f'{namespace}/'
            name = entry.text
            full = name if name.startswith('/') else f'{base}{node}{name[1:]}' \
                if name.startswith('~') else f'{base}{name}'
            assert '*' not in full, 'a wildcard allows what nobody has listed'
            assert group.tag != 'actions' or access == 'execute'
            parts = ACTION.items() if group.tag == 'actions' else [((group.tag, access), ('',))]
            for key, ends in parts:
                names = granted.setdefault(key, set())
                made = {f'{full}/_action/{end}' if end else full for end in ends}
                assert not names & made, f'{full} is there twice'
                names |= made
    return granted


def _as_of(granted: Grants, on: bool) -> Grants:
    """Give what is granted for a node whose mirrors are on, or off."""
    mirrors = {f'/encoder/{name}' for name in (
        'embedding/array', 'reward', 'reset', 'success/failed', 'success/probability',
        'success/succeeded')}
    return {key: names if on else names - mirrors for key, names in granted.items()}


def _graph(harness: Harness, node: str = 'encoder') -> Grants:
    """Ask the graph what a node has."""
    return {(tag, access): set(harness.offered(node, kind)) for tag, access, kind in (
        ('topics', 'publish', 'publisher'), ('topics', 'subscribe', 'subscriber'),
        ('services', 'reply', 'service'), ('services', 'request', 'client'))}


def test_the_policy_is_what_the_node_does(harness: Harness) -> None:
    """
    Nothing that the node makes is missing in the policy, and nothing in it is not made.

    Too little ends the node where security is enforced; too much is what an intruder can use.
    """
    granted = _policy('encoder')
    seen: Grants = {}
    for parameters in ({}, {'use_sim_time': 'true', 'wrist__transport': 'compressed',
                            'third_person__transport': 'compressed', **{
                                f'mirrors__{name}': 'true' for name in MIRRORS}}):
        process = harness.start_active(**parameters)
        heard = 4 if parameters else 2
        harness.wait(lambda n=heard: len(_graph(harness)['topics', 'subscribe']) == n,
                     'the subscriptions in the graph', process)
        # Discovery brings one endpoint after the other.
        harness.wait(lambda on=bool(parameters): all(
            names <= _graph(harness)[key] for key, names in _as_of(granted, on).items()
            if key != ('topics', 'subscribe')), 'all that is granted in the graph', process)
        harness.spin(0.5)
        for key, names in _graph(harness).items():
            assert names <= granted.get(key, set()), f'{key}: not in the policy'
            seen[key] = seen.get(key, set()) | names
        assert process.stop() == 0
        harness.infos.clear()
        harness.wait(lambda: 'encoder' not in harness.node.get_node_names(), 'its end')
    assert {key: names for key, names in seen.items() if names} == granted


def test_the_policy_of_the_policy_node(harness: Harness, tmp_path: Path) -> None:
    """
    The same of the node that moves the arm, for each kind of action and proprioception.

    Nobody else may publish its commands only if exactly these are granted to it.
    """
    granted = _policy('policy')
    seen: Grants = {}
    # Tool and pose, then joints; the clock comes with the second.
    for number, (values, parameters) in enumerate((
            ({'proprio': [PROPRIO[0], {'name': 'tool.x', 'unit': 'm'},
                          {'name': 'tool.y', 'unit': 'm'}]}, {}),
            ({'actions': [{'name': f'joint.{name}', 'unit': 'rad'} for name in 'ab']},
             {'use_sim_time': 'true'}))):
        policy = write_robot_policy(tmp_path / f'policy{number}', **values)
        process = harness.start('policy', policy=str(policy), autostart='true', **parameters)
        inputs = {f'/encoder/{name}' for name in ('embedding', 'info', 'success')} | {
            '/joint_states', '/clock' if parameters else '/tool_pose'}
        harness.wait(lambda want=inputs: _graph(harness, 'policy')[
            'topics', 'subscribe'] == want, 'the subscriptions in the graph', process)
        harness.wait(lambda: '/policy/chunk' in _graph(harness, 'policy')['topics', 'publish'],
                     'its commands in the graph', process)
        harness.spin(0.5)
        for key, names in _graph(harness, 'policy').items():
            assert names <= granted.get(key, set()), f'{key}: not in the policy'
            seen[key] = seen.get(key, set()) | names
        assert process.stop() == 0
        harness.wait(lambda: 'policy' not in harness.node.get_node_names(), 'its end')
    assert {key: names for key, names in seen.items() if names} == granted


# Security that is asked for and cannot be had.

@pytest.mark.parametrize('keystore', ['none', 'missing', 'empty'])
@pytest.mark.parametrize('module', ['encoder_node', 'policy_example'])
def test_no_start_without_the_security_asked_for(
    harness: Harness, tmp_path: Path, module: str, keystore: str,
) -> None:
    """
    With security enforced and no keys the process ends with one sentence, and never runs open.

    Where ROS 2 comes from wheels its Fast DDS has no security at all, and says so in the case
    'empty'; a ROS 2 with security misses the files of the enclave there.
    """
    environment = {'ROS_SECURITY_ENABLE': 'true', 'ROS_SECURITY_STRATEGY': 'Enforce'}
    if keystore != 'none':
        environment['ROS_SECURITY_KEYSTORE'] = str(tmp_path / 'keystore')
    if keystore == 'empty':
        (tmp_path / 'keystore/enclaves').mkdir(parents=True)
    process = harness.start(module, environment=environment)
    assert process.wait() == 1
    assert 'ROS 2 does not start' in process.output and 'docs/how_to/security.md' in process.output
    assert 'Traceback' not in process.output


@pytest.mark.parametrize('wrong', [
    {'ROS_SECURITY_ENABLE': 'True'}, {'ROS_SECURITY_ENABLE': '1'},
    {'ROS_SECURITY_ENABLE': 'true', 'ROS_SECURITY_STRATEGY': 'enforce'}])
def test_security_misspelt_is_no_start(harness: Harness, wrong: dict[str, str]) -> None:
    """
    Guards against a node that runs open because of a capital letter.

    ROS 2 knows `true` and `Enforce` only, and takes everything else for a wish to run unsecured.
    """
    process = harness.start(environment=wrong)
    assert process.wait() == 1
    assert 'without security' in process.output and 'Traceback' not in process.output


# Signed bundles.

class Signed:
    """A signed copy of the tiny bundle, and keys."""

    def __init__(self, folder: Path) -> None:
        from hralign_ros.runtime.bundle import sign_bundle
        from hralign_ros.runtime.signature import make_key

        self.bundle = folder / 'bundle'
        shutil.copytree(robot_bundle(), self.bundle)
        self.private, self.public, self.key_id = make_key(folder / 'mine')
        self.other = make_key(folder / 'other')[1]
        sign_bundle(self.bundle, self.private)


@pytest.fixture
def signed(tmp_path: Path) -> Signed:
    """Make a signed bundle."""
    pytest.importorskip('cryptography', reason='cryptography is not installed')
    return Signed(tmp_path)


def test_a_signed_bundle_runs(harness: Harness, signed: Signed) -> None:
    """With its key among the trusted ones the node configures, and the log says whose it is."""
    process = harness.start_active(
        bundle=str(signed.bundle), require_signature='true',
        trusted_keys=f"['{signed.other}', '{signed.public}']")
    assert f'signature: good, by the trusted key {signed.key_id[:16]}' in process.output


@pytest.mark.parametrize('keys', ["['']", "['', '']", '[]'])
def test_no_trusted_keys(harness: Harness, signed: Signed, keys: str) -> None:
    """
    A list of nothing does not satisfy a required signature.

    Of a list without entries ROS 2 does not know what it is a list of, and takes the parameter
    for one that is not set; reading it was a traceback.
    """
    process = harness.start(bundle=str(signed.bundle), require_signature='true',
                            trusted_keys=keys)
    assert not harness.transition(Transition.TRANSITION_CONFIGURE)
    assert 'no trusted keys are given' in process.output and 'Traceback' not in process.output


def test_the_file_of_defaults_leaves_signatures_alone(harness: Harness, signed: Signed) -> None:
    """config/encoder.yaml itself has a list without keys: it loads as such, signed or not."""
    process = harness.start(
        arguments=('--params-file', str(ROOT / 'config/encoder.yaml'), '-p',
                   f'bundle:={signed.bundle}'))
    assert harness.transition(Transition.TRANSITION_CONFIGURE), process.output
    assert 'signature: none that was checked' in process.output


BAD = {
    'unsigned': (lambda s: (s.bundle / 'bundle.sig').unlink(), 'no signature', True),
    'unsigned, not required': (lambda s: (s.bundle / 'bundle.sig').unlink(), '', False),
    'another key': (lambda s: shutil.copy(s.other, s.public), 'not trusted', True),
    'another key, not required': (lambda s: shutil.copy(s.other, s.public), 'not trusted', False),
    'changed': (lambda s: (s.bundle / 'bundle.yaml').write_bytes(
        (s.bundle / 'bundle.yaml').read_bytes() + b'\n'), 'not what was signed', True),
    'no key file': (lambda s: s.public.unlink(), 'cannot be read', True),
    'no key in it': (lambda s: s.public.write_text('key'), 'no PEM file', True),
    'one file damaged': (lambda s: (s.bundle / 'text.onnx').write_bytes(b'x'), 'cut or replaced',
                         True),
}


@pytest.mark.parametrize('case', BAD)
def test_configure_needs_a_good_signature(harness: Harness, signed: Signed, case: str) -> None:
    """Each way to be wrong is one error of its own, the node stays unconfigured and lives."""
    break_it, text, required = BAD[case]
    break_it(signed)
    process = harness.start(bundle=str(signed.bundle), trusted_keys=f"['{signed.public}']",
                            require_signature=str(required).lower())
    assert harness.transition(Transition.TRANSITION_CONFIGURE) is not bool(text), process.output
    if text:
        assert text in process.output and process.output.count('[ERROR]') == 1
        assert harness.state() == 'unconfigured'
    assert 'Traceback' not in process.output
    assert process.stop() == 0


@pytest.mark.parametrize('keys', ["['{}']", '[]'])
def test_trust_cannot_be_changed_while_it_runs(
    harness: Harness, signed: Signed, keys: str,
) -> None:
    """Whoever can set parameters over the network cannot choose whom the robot trusts."""
    harness.start(bundle=str(signed.bundle), require_signature='true',
                  trusted_keys=keys.format(signed.public))
    for change in ({'require_signature': False}, {'trusted_keys': [str(signed.other)]},
                   {'bundle': '/tmp'}):
        result = harness.set_parameters(**change)
        assert not result.successful and 'read-only' in result.reason
