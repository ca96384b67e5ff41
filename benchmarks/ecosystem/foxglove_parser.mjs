// Copyright 2026 hralign_ros maintainers
// SPDX-License-Identifier: Apache-2.0

// Reads an MCAP file as Foxglove does, and prints fields and constants as JSON, by topic.

import { readFile } from 'node:fs/promises';
import { McapIndexedReader } from '@mcap/core';
import { parse } from '@foxglove/rosmsg';
import { MessageReader } from '@foxglove/rosmsg2-serialization';

// In Foxglove a stamp is {sec, nsec}.
const renamed = { nsec: 'nanosec' };

function* flat(value, path) {
  if (typeof value === 'object' && value !== null && value[Symbol.iterator] === undefined) {
    for (const [name, inner] of Object.entries(value)) {
      const known = renamed[name] ?? name;
      yield* flat(inner, path ? `${path}/${known}` : known);
    }
  } else if (typeof value === 'object') {
    let at = 0;
    for (const inner of value) yield* flat(inner, `${path}[${at++}]`);
  } else {
    yield [path, typeof value === 'bigint' ? Number(value) : value];
  }
}

const data = await readFile(process.argv[2]);
const reader = await McapIndexedReader.Initialize({
  readable: {
    size: async () => BigInt(data.length),
    read: async (offset, size) => data.subarray(Number(offset), Number(offset + size)),
  },
});
const found = {};
for await (const message of reader.readMessages()) {
  const channel = reader.channelsById.get(message.channelId);
  const schema = reader.schemasById.get(channel.schemaId);
  try {
    const types = parse(new TextDecoder().decode(schema.data), { ros2: true });
    const constants = {};
    for (const field of types.flatMap((type) => (type.name === undefined ? type.definitions : []))) {
      if (field.isConstant) constants[field.name] = field.value;
    }
    const values = Object.fromEntries(flat(new MessageReader(types).readMessage(message.data), ''));
    found[channel.topic] = { values, constants };
  } catch (error) {
    found[channel.topic] = { error: String(error) };
  }
}
console.log(JSON.stringify(found));
