// The TypeScript SDK 1.x.
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { ResourceUpdatedNotificationSchema } from '@modelcontextprotocol/sdk/types.js';
import { journey } from './journey.mjs';

async function connect({ url, command, args, env }) {
  const transport = command
    ? new StdioClientTransport({ command, args, env })
    : new (url.endsWith('/sse') ? SSEClientTransport : StreamableHTTPClientTransport)(new URL(url));
  const client = new Client({ name: 'sdk1', version: '1' });
  await client.connect(transport);
  return client;
}

async function watch(client, uri) {
  const changed = new Promise((resolve) =>
    client.setNotificationHandler(ResourceUpdatedNotificationSchema, ({ params }) => resolve(params.uri)));
  await client.subscribeResource({ uri });
  return { changed, stop: () => client.unsubscribeResource({ uri }) };
}

await journey(connect, watch, -32002);
