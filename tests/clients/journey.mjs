// What every client of the TypeScript SDKs does with our server. `connect` makes a client of what the first argument
// says, `watch` promises the next notice of a change to a resource, once the server has accepted that, and `missing` is
// the code of the error for a resource that is not there, as that SDK gives it.
import assert from 'node:assert/strict';

const how = JSON.parse(process.argv[2]);

export async function journey(connect, watch, missing) {
  const client = await connect(how);
  assert.deepEqual((await client.listTools()).tools.map((tool) => tool.name), how.tools);

  const call = async (name, args) => {
    const result = await client.callTool({ name, arguments: args });
    assert.ok(!result.isError, JSON.stringify(result));
    return result.structuredContent;
  };
  const { session_id } = await call('session_create', { purpose: 'Walk through', tags: ['typescript'] });
  const value = { steps: [1, 2.5, null, 'é'] };
  const added = await call('session_add_message', { session_id, role: 'user', content: 'Grüße, 世界' });
  assert.equal(added.seq, 1);
  await call('session_set', { session_id, key: 'the/plan é', value });
  const read = await call('session_get', { session_id, messages: 1 });
  assert.deepEqual(read.data, { 'the/plan é': value });
  assert.equal(read.messages[0].content, 'Grüße, 世界');
  const found = await call('session_search', { text: 'GRÜßE', session_id });
  assert.deepEqual(found.hits.map((hit) => hit.seq), [1]);

  const session = `session:///${session_id}`;
  assert.ok((await client.listResources()).resources.some((resource) => resource.uri === session));
  assert.equal((await client.listResourceTemplates()).resourceTemplates.length, how.templates);
  const { contents } = await client.readResource({ uri: `${session}/data/${encodeURIComponent('the/plan é')}` });
  assert.deepEqual(JSON.parse(contents[0].text), value);
  await assert.rejects(client.readResource({ uri: 'session:///nobody' }), { code: missing });

  const { changed, stop } = await watch(client, session);
  await call('session_set', { session_id, key: 'watched', value: true });
  assert.equal(await within(10_000, changed), session);
  await stop();

  const { prompts } = await client.listPrompts();
  assert.deepEqual(prompts.map((prompt) => prompt.name), ['resume_session', 'summarize_session']);
  const { messages } = await client.getPrompt({ name: 'resume_session', arguments: { session_id } });
  assert.match(messages[0].content.text, /Grüße, 世界/);
  const ref = { type: 'ref/prompt', name: 'resume_session' };
  const argument = { name: 'session_id', value: session_id.slice(0, 12) };
  assert.deepEqual((await client.complete({ ref, argument })).completion.values, [session_id]);

  const refused = await client.callTool({ name: 'session_get', arguments: { session_id: 'nobody' } });
  assert.ok(refused.isError);
  assert.match(refused.content[0].text, /nobody not found/);
  const unknown = await client.callTool({ name: 'session_gte', arguments: {} });
  assert.ok(unknown.isError);
  assert.match(unknown.content[0].text, /did you mean 'session_get'/);

  const many = Array.from({ length: 32 }, (_, n) => call('session_set', { session_id, key: `k${n}`, value: n }));
  assert.equal(new Set((await Promise.all(many)).map((set) => set.version)).size, 32);
  await client.close();
}

function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`not within ${ms} ms`)), ms)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
