// The TypeScript SDK 2.x, in the protocol that its options let it find.
import { Client, SSEClientTransport, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import assert from 'node:assert/strict';
import { journey } from './journey.mjs';

async function connect({ url, command, args, env, options, version }) {
  const transport = command
    ? new StdioClientTransport({ command, args, env })
    : new (url.endsWith('/sse') ? SSEClientTransport : StreamableHTTPClientTransport)(new URL(url));
  const client = new Client({ name: 'sdk2', version: '2' }, options);
  await client.connect(transport);
  assert.equal(client.getNegotiatedProtocolVersion(), version);
  return client;
}

async function watch(client, uri) {
  const changed = new Promise((resolve) =>
    client.setNotificationHandler('notifications/resources/updated', ({ params }) => resolve(params.uri)));
  if (client.getNegotiatedProtocolVersion() < '2026') {
    await client.subscribeResource({ uri });
    return { changed, stop: () => client.unsubscribeResource({ uri }) };
  }
  const subscription = await client.listen({ resourceSubscriptions: [uri] });
  return { changed, stop: () => subscription.close() };
}

await journey(connect, watch, -32602); // of the old era's code it makes that one
