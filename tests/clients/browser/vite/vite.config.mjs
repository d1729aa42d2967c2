// Vite listens before it watches: a change that comes earlier is not seen by it.
const watching = {
  name: 'watching',
  configureServer({ middlewares, watcher }) {
    middlewares.use('/watching', (_, response) => {
      const files = Object.values(watcher.getWatched()).flat()
      response.writeHead(files.includes('note.js') ? 204 : 503).end()
    })
  },
}

export default {
  // `Host` is the cloud's name of the port, not the preview's. Vite itself allows all names below localhost.
  server: { allowedHosts: ['.ags.localhost'] },
  plugins: [watching],
}
